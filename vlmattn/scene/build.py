"""The untrained scene model: a small real LLaVA with its tokenizer and processor, made from nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vlmattn.scene.generator import COLUMNS, ROWS
from vlmattn.scene.objects import COLORS, SHAPES, SIZES
from vlmattn.scene.phrasings import COMPARISONS, ENDINGS, PLURALS, RELATIONS, TRAIN, frames, with_article
from vlmattn.scene.questions import NUMBERS

IMAGE_SIDE = 112
PATCH_SIDE = 14
GRID_SIDE = IMAGE_SIDE // PATCH_SIDE
SPECIAL = ("<s>", "</s>", "<pad>", "<image>")

CHAT_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% elif message['role'] == 'assistant' %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}</s>{% else %} {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make_tokenizer() -> Any:
    """Byte-level BPE in which every word of the templates is one token; other text falls back to its bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=512,
        extra_special_tokens={"image_token": "<image>"},
    )


def _corpus() -> Iterator[str]:
    zones = [f"{row} {column}" for row in ROWS for column in COLUMNS]
    names = [f"{color} {shape}" for color in COLORS for shape in SHAPES]
    fillers: dict[str, list[str]] = {
        "color": list(SHAPES),
        "shape": list(COLORS),
        "at": zones,
        "count": ["objects", "things", *(f"{c} objects" for c in COLORS), *PLURALS.values()],
        "exist": [with_article(n) for n in (*names, *SHAPES, *(f"{c} object" for c in COLORS))],
    }
    for kind, phrases in TRAIN.items():
        relations = RELATIONS if kind == "relation" else COMPARISONS
        for phrase in phrases:
            for index, filler in enumerate(fillers.get(kind, names)):
                text = phrase.format(
                    o=filler, a=filler, b=names[-1 - index % len(names)], r=relations[index % len(relations)]
                )
                said = f"{with_article(names[index % len(names)])}, {zones[index % len(zones)]}"
                yield f"USER: \n{text} ASSISTANT: {said}"
        for text in (framed for phrase in phrases for framed in frames(phrase)):
            yield f"USER: \n{text.format(o=names[0], a=names[0], b=names[-1], r=relations[0])} ASSISTANT:"
    for word in (*SIZES, *NUMBERS, "yes", "no", *(e for endings in ENDINGS.values() for e in endings)):
        for _ in range(20):
            yield f"USER: is {word} ASSISTANT: {word}"


def make_processor(tokenizer: Any) -> Any:
    """Pads a picture to a square with the mean colour, so that nothing is cut off, and scales it to 112 pixels."""
    from transformers import LlavaImageProcessor, LlavaProcessor

    pixels = LlavaImageProcessor(
        do_pad=True, size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}, do_center_crop=False, do_resize=True
    )
    return LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=PATCH_SIDE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(tokenizer: Any) -> Any:
    """2.7 million parameters: CLIP tower (4 layers, d = 128), Llama (4 layers, d = 192, 6 heads), tied embeddings."""
    from transformers import CLIPVisionConfig, GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=IMAGE_SIDE,
        patch_size=PATCH_SIDE,
        hidden_act="gelu",
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        **special,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=GRID_SIDE**2,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**special, max_new_tokens=64, do_sample=False)
    return model
