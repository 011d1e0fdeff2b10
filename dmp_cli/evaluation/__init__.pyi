from .array_images import holds_images as holds_images
from .crew import Crew as Crew
from .digit_classifier import CLASSIFIER_FILE as CLASSIFIER_FILE, DigitClassifier as DigitClassifier
from .distances import fit_gaussian as fit_gaussian, frechet_distance as frechet_distance
from .early import check_scoring as check_scoring
from .features import load_extractor as load_extractor
from .few_images import few_of as few_of
from .first_images import draw_rows as draw_rows, read_first_images as read_first_images
from .gates import gates_sections as gates_sections
from .helpers import helping as helping
from .metrics import HIGHER_IS_BETTER as HIGHER_IS_BETTER, title_of as title_of
from .needs import ScoringNeed as ScoringNeed, statistics_bytes as statistics_bytes
from .page import build_score_page as build_score_page
from .results import (
    Evaluation as Evaluation,
    describe_features as describe_features,
    describe_reference as describe_reference,
    direction_of as direction_of,
    plus_minus as plus_minus,
    render_scores as render_scores,
    score_table as score_table,
)
from .scoring import evaluate as evaluate, evaluate_together as evaluate_together
from .survey import Survey as Survey, survey_scoring as survey_scoring
