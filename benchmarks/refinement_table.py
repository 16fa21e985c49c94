"""The study of ``refinement.py`` as a page in Markdown."""

from __future__ import annotations

from typing import Any

_FEWER = ("layers", "floor", "share", "window_share", "window_px")


def table(result: dict[str, Any]) -> str:
    """The whole page."""
    return "\n".join([*_head(result), *_rows(result), "", *_notes(result), *_sinks(result["sinks"])]) + "\n"


def _head(result: dict[str, Any]) -> list[str]:
    sets = result["sets"]
    names = " | ".join(f"{n} ({s['questions']})" for n, s in sets.items())
    return [
        "# Study: does a second look help?", "",
        f"Model `{result['model']}`; command `python benchmarks/refinement.py --model {result['model']} --scenes "
        f"{result['scenes']} --write docs`. Share of right answers (number of questions). On `tiny`: p of the exact "
        "paired test against the plain answer and against the random crop, not corrected for the number of routes; of "
        "what the oracle crop gains, how much the route gains, with a bootstrap 95 % interval; CPU time of both looks "
        "over that of one answer, without the general pass, which costs "
        f"{result['cost']['general pass']:.1f} answers once per picture (CARVE, ViCrop rel-att), or as a gradient "
        f"{result['cost']['general gradient']:.1f} (pure-grad).", "",
        f"| route | {names} | p, plain | p, random | of the oracle's gain | cost |",
        "|---" * (len(sets) + 5) + "|",
    ]  # fmt: skip


def _rows(result: dict[str, Any]) -> list[str]:
    sets, lines = result["sets"], []
    for route, row in sets["tiny"]["routes"].items():
        cells = [f"{s['routes'][route]['accuracy']:.3f}" if route in s["routes"] else "" for s in sets.values()]
        cells += [f"{row['p against plain']:.2g}", f"{row['p against random crop']:.2g}", _gain(row)]
        lines.append(f"| {route} | {' | '.join(cells)} | {result['cost']['factor'][route]:.1f} |")
    return lines


def _gain(row: dict[str, Any]) -> str:
    if row["share of the oracle's gain"] is None:
        return "nothing to gain"
    share, low, high = row["share of the oracle's gain"]
    return f"{share:.0%} ({low:.0%} to {high:.0%})"


def _notes(result: dict[str, Any]) -> list[str]:
    sets, gate, best = result["sets"], result["gate"], result["best on validation"]
    row = sets["tiny"]["routes"][best]
    looked = ", ".join(f"{s['gate looked again']:.0%} ({n})" for n, s in sets.items())
    return [
        f"The best route on {result['validation questions']} validation questions "
        f"({result['validation'][best]:.3f} right there) is *{best}*: on the tiny things of the test it is right "
        f"{row['accuracy']:.3f} of the time (of the oracle crop's gain: {_gain(row)}), p = "
        f"{row['p against plain']:.2g} against the plain answer, {row['p against random crop']:.2g} against the random "
        "crop.", "",
        "`position` asks where a tiny thing lies in the whole picture, or what lies in a part of it. A crop shown "
        "alone has other places: routes that show one (all but those with both pictures, masks, blur and fade) answer "
        "another question there, the oracle crop too, so that it is no upper bound in that column. Such answers count "
        "as wrong: that is what these routes do to such a question. Settings were chosen on questions about things, "
        "not places.", "",
        f"The gate, fitted on the validation questions for *{gate['gate']['name'].partition(': ')[2]}*, looked again "
        f"at {looked} of the questions; on validation it saved {gate['saved']:.0%} of the second looks.", "",
        "Settings chosen on validation (`vlmattn.refine.Recipe`; what is not told is the recipe's own):", "",
        *(f"* {name}: {_settings(one)}" for name, one in result["settings"].items()),
    ]  # fmt: skip


def _settings(one: dict[str, Any]) -> str:
    from vlmattn.refine import RECIPES

    told = [name for name in _FEWER if name not in RECIPES[one["name"]].idle and one[name] is not None]
    if one["place"] == "regions":
        told = [name for name in told if not name.startswith("window")]
    return f"`{one['name']}`, " + ", ".join(f"{name} {one[name]}" for name in told)


def _sinks(found: dict[str, Any]) -> list[str]:
    lines = ["", f"`scene-sinks`, tiny things, {found['questions']} questions:", "",
             "| route | right | p, plain | of the oracle's gain |", "|---|---|---|---|"]  # fmt: skip
    for route, row in found["routes"].items():
        lines.append(f"| {route} | {row['accuracy']:.3f} | {row['p against plain']:.2g} | {_gain(row)} |")
    return lines
