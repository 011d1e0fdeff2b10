from .arms import OWN as OWN, TABLES as TABLES, Arm as Arm, arms_of as arms_of, read_arms as read_arms
from .folder import AblationFolder as AblationFolder
from .page import build_ablation_page as build_ablation_page, draw_pictures as draw_pictures
from .plan import DIGITS as DIGITS, Plan as Plan
from .seeds import KINDS as KINDS, interval_of_seeds as interval_of_seeds
from .table import (
    notes_of as notes_of,
    render_markdown as render_markdown,
    report_of as report_of,
    table_of as table_of,
)
