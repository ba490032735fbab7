"""Prediction beside measurement: report.html, report.json.

Fill a :class:`~infalign.report.record.Report` and call :func:`write_report`; `load_report` reads
the JSON back into equal records. Importing this module loads neither matplotlib nor jinja2.
"""

from infalign.report.record import (
    Act,
    Answer,
    AnswerPair,
    CalibrationCheck,
    Checkpoint,
    Comparison,
    Curve,
    Decomposition,
    DecompositionRow,
    Difference,
    Estimate,
    Frontier,
    IdealRow,
    Manifest,
    Measured,
    PolicyValue,
    PromptSpread,
    Report,
    Split,
    Stage,
    TrainingCurve,
    WinRateByN,
)
from infalign.report.write import load_report, main_figure_png, main_figure_svg, write_report

__all__ = [
    "Act",
    "Answer",
    "AnswerPair",
    "CalibrationCheck",
    "Checkpoint",
    "Comparison",
    "Curve",
    "Decomposition",
    "DecompositionRow",
    "Difference",
    "Estimate",
    "Frontier",
    "IdealRow",
    "Manifest",
    "Measured",
    "PolicyValue",
    "PromptSpread",
    "Report",
    "Split",
    "Stage",
    "TrainingCurve",
    "WinRateByN",
    "load_report",
    "main_figure_png",
    "main_figure_svg",
    "write_report",
]
