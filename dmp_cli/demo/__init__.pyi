from .digits import load_digits as load_digits, write_digits as write_digits
from .page import build_demo_page as build_demo_page
from .pictures import draw_before_after as draw_before_after, draw_side_by_side as draw_side_by_side
from .story import Story as Story
