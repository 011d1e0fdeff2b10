from .canvas import (
    FAINT as FAINT,
    HEAD as HEAD,
    INK as INK,
    LINES as LINES,
    SMALL as SMALL,
    TEXT as TEXT,
    Box as Box,
    add_axes as add_axes,
    hide_spines as hide_spines,
    new_figure as new_figure,
    png_bytes as png_bytes,
)
from .curves import draw_curves as draw_curves
from .html import (
    PNG_SIGNATURE as PNG_SIGNATURE,
    Comparison as Comparison,
    Frames as Frames,
    Page as Page,
    Picture as Picture,
    Section as Section,
    Table as Table,
    render as render,
)
from .image_grid import draw_image_grid as draw_image_grid
from .intervals import EXCLUDES_ZERO as EXCLUDES_ZERO, Interval as Interval, Intervals as Intervals
from .markdown import markdown_table as markdown_table
from .parallel import Column as Column, draw_parallel as draw_parallel
from .scale import draw_scale as draw_scale
from .wording import compare_in_words as compare_in_words, short_names as short_names, span_in_words as span_in_words
