from .depth_maps import draw_depth_maps as draw_depth_maps
from .gate_comparison import (
    COMPARED as COMPARED,
    compared_rows as compared_rows,
    divergence as divergence,
    split_variance as split_variance,
    write_comparison as write_comparison,
)
from .gate_in_words import describe_gate as describe_gate
from .gate_weights import GateStudy as GateStudy, study as study, timestep_in_words as timestep_in_words
from .gates_page import build_gates_page as build_gates_page
from .heatmaps import draw_block as draw_block, draw_gates as draw_gates
from .magnitude import Added as Added, encode_some as encode_some, measure_added as measure_added
