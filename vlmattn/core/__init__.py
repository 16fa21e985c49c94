"""What every layer uses: errors, checks, layouts, pictures and videos, files, provenance."""
