"""Reports that open from disk: `write_report` of one comparison, `write_timeline` of a training's checkpoints."""

from __future__ import annotations

from perceptloss.compare.report.document import report_html, write_report
from perceptloss.compare.report.quality import QualityMaps, quality_maps
from perceptloss.compare.report.timeline import timeline_html, write_timeline

__all__ = ["QualityMaps", "quality_maps", "report_html", "timeline_html", "write_report", "write_timeline"]
