"""What a person looks at: plots and a model card, drawn from measured numbers only."""

from fiduciary_trainer.report.report import Report, write_report

__all__ = ["Report", "write_report"]
