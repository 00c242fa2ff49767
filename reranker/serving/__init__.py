"""Load, save, register and export trained rerankers."""

from reranker.serving.publish import register, save_bundle
from reranker.serving.registry import Registered
from reranker.serving.teacher_lookup import find_teacher, teacher_warnings

__all__ = ["Registered", "find_teacher", "register", "save_bundle", "teacher_warnings"]
