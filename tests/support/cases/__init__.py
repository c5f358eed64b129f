"""What may be wrong with what comes from outside: input, the sentence that the user reads, exit code.

One table: tests/faults/test_errors.py provokes every case, and `python -m tests.support.errors_page > docs/errors.md`
prints it.
"""

from tests.support.cases.archives import ARCHIVES
from tests.support.cases.case import Case
from tests.support.cases.checkpoints import CHECKPOINTS
from tests.support.cases.collected import COLLECTED
from tests.support.cases.images import IMAGES
from tests.support.cases.memory import MEMORY
from tests.support.cases.models import MODELS
from tests.support.cases.network import DOWNLOADS
from tests.support.cases.odd_images import ODD_IMAGES
from tests.support.cases.packed import PACKED
from tests.support.cases.parameters import PARAMETERS
from tests.support.cases.scored import SCORED
from tests.support.cases.stores import STORES
from tests.support.cases.values import VALUES

CASES: dict[str, list[Case]] = {
    "params.yaml": [*PARAMETERS, *VALUES],
    "Images": [*IMAGES, *ODD_IMAGES, *COLLECTED],
    "Download": DOWNLOADS,
    "The archive of Flowers-102": ARCHIVES,
    "Models": MODELS,
    "Checkpoints": CHECKPOINTS,
    "Packed data": PACKED,
    "Samples and scores": SCORED,
    "The MLflow store": STORES,
    "Too little memory": MEMORY,
}
