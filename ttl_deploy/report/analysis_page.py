"""An analysis on the page: read from the run folder, with pictures of patients only where they are wanted."""

import base64

from ttl_deploy.errors import DataError
from ttl_deploy.records import codec
from ttl_deploy.records.analysis import ANALYSIS_FILE, CAM_FOLDER, Analysis
from ttl_deploy.report.analysis_listing import describe_cams, explain, list_tables
from ttl_deploy.report.analysis_plot import draw_similarity
from ttl_deploy.report.analysis_story import AnalysisStory
from ttl_deploy.runs.folder import RunFolder


def read_analysis(run: RunFolder, *, embed_images: bool = False) -> AnalysisStory | None:
    """Read a run's analysis, with its pictures only if these are to be embedded; None where there is none.

    Raises `DataError` where a picture is missing.
    """
    if not (run.path / ANALYSIS_FILE).exists():
        return None
    found = codec.load(Analysis, run.path / ANALYSIS_FILE)
    files = [one.file for one in found.cams.images] if embed_images and found.cams else []
    return AnalysisStory(
        found=found,
        plot=draw_similarity(found),
        tables=list_tables(found),
        sentences=tuple(explain(found)),
        cams="" if found.cams is None else describe_cams(found),
        pictures={file: _embed(run, file) for file in files},
    )


def _embed(run: RunFolder, file: str) -> str:
    path = run.path / file
    if path.parent != run.path / CAM_FOLDER or not path.is_file():
        raise DataError(f"{path} is missing: type `ttl-deploy analyze` again, or leave --embed-images out")
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
