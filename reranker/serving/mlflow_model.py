"""What MLflow stores as the model: this source, run at load (no pickle), around `Reranker`."""

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, ConfigDict

from reranker import Reranker
from reranker.errors import RequestError


class Candidate(BaseModel):
    """A book to rank: an id of the catalogue, a text, or both."""

    model_config = ConfigDict(extra="forbid", strict=True)  # "41" is not 41
    book_id: int | None = (
        None  # MLflow checks no union of int and str, so foreign ids need the caller's own order
    )
    text: str | None = None


class RerankRequest(BaseModel):
    """One reader, by context text or by the ids of rated books, and the books to rank."""

    model_config = ConfigDict(extra="forbid", strict=True)
    user_ctx: str | None = None
    history: list[int] | None = None
    ratings: list[float] | None = None
    timestamps: list[int] | None = None
    candidates: list[Candidate]


class RankedBook(BaseModel):
    """A ranked candidate; rank 1 is the best."""

    rank: int
    book_id: int | None = None
    score: float
    text: str


class ServedModel(PythonModel):
    """`Reranker` behind MLflow's `predict`: the type hints give the signature and check the input."""

    def load_context(self, context: PythonModelContext) -> None:
        """Build the reranker from the bundle that was logged with this file, or its exported `variant`."""
        variant = context.model_config["variant"]
        self.reranker = Reranker.from_folder(context.artifacts["bundle"], variant=variant)

    def predict(  # type: ignore[override]  # MLflow leaves out `context` for a predict with type hints
        self, model_input: list[RerankRequest], params: dict[str, Any] | None = None
    ) -> list[list[RankedBook]]:
        """Ranked candidates of every request, in the order of the requests.

        Raises:
            MlflowException: INVALID_PARAMETER_VALUE, which the model server answers as 400; the field is named.
        """
        return [self._rerank(i, request) for i, request in enumerate(model_input)]

    def _rerank(self, i: int, request: RerankRequest) -> list[RankedBook]:
        candidates = [c.model_dump() for c in request.candidates]
        try:
            ranked = self.reranker.rerank(
                request.user_ctx,
                candidates,
                history=request.history,
                ratings=request.ratings,
                timestamps=request.timestamps,
            )
        except RequestError as error:
            raise MlflowException.invalid_parameter_value(f"inputs[{i}]: {error}") from error
        return [RankedBook(**vars(r)) for r in ranked]


set_model(ServedModel())
