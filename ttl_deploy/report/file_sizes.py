"""The front by the size of the ONNX file, of which the search knows no verdicts: the scores as they are decide."""

from collections.abc import Mapping

from ttl_deploy.records.scores import Front, Standing
from ttl_deploy.report.listing import auroc_of
from ttl_deploy.report.story import RunStory

BY_FILE_SIZE = "file size"


def find_sizes(story: RunStory, front: Front) -> dict[str, int]:
    """Return the bytes of each candidate's ONNX file, by the candidate's name; none where it was not profiled."""
    costs = {point.name: story.cost(point.cut) for point in front.points}
    return {name: cost.size_bytes for name, cost in costs.items() if cost is not None}


def stand_by_size(front: Front, sizes: Mapping[str, float]) -> dict[str, Standing]:
    """Tell who is on the front by file size: nobody else is as small and as good, and one of both more so."""
    places = {name: (size, -(auroc_of(front.point(name).validation).value or 0.0)) for name, size in sizes.items()}
    return {
        name: "off the front"
        if any(one != place and one[0] <= place[0] and one[1] <= place[1] for one in places.values())
        else "on the front"
        for name, place in places.items()
    }
