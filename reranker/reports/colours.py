"""Colours of figures, readable on white and on near-black backgrounds."""

# Hues after Okabe & Ito 2008, at a medium lightness.
BLUE, VIOLET, GREEN, GREY = "#1b87c9", "#7d6bd0", "#0f9d74", "#8a8f98"
ORANGE, PINK, RED = "#d98a00", "#c8689c", "#d5641c"
