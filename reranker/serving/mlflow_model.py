"""The source file that MLflow stores as the model and runs on load, in place of a pickle."""

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from pydantic import BaseModel, ConfigDict

from reranker import Reranker
from reranker.errors import RequestError


class Candidate(BaseModel):
    """A book to rank: a book id of the catalogue, a text, or both."""

    model_config = ConfigDict(extra="forbid", strict=True)  # "41" is not 41
    # Strings are not accepted: MLflow cannot check the type hint `int | str`.
    book_id: int | None = None
    text: str | None = None


class RerankRequest(BaseModel):
    """A user, as a context text or as the ids of rated books, and the books to rank."""

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
    """`Reranker` as an MLflow model: MLflow derives the signature from the type hints."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the logged bundle, or the exported variant that `model_config` names."""
        variant = context.model_config["variant"]
        self.reranker = Reranker.from_folder(context.artifacts["bundle"], variant=variant)

    def predict(  # type: ignore[override]  # with type hints MLflow passes no `context`
        self, model_input: list[RerankRequest], params: dict[str, Any] | None = None
    ) -> list[list[RankedBook]]:
        """Return the ranked candidates of every request, in the order of the requests.

        Raises:
            MlflowException: A request is invalid; the message names the field. The error code is
                INVALID_PARAMETER_VALUE, for which the model server returns HTTP status 400.
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
