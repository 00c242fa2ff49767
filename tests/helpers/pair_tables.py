"""Pairs files in the original system's schema, as a test writes them."""

from __future__ import annotations

import pandas as pd


def pairs_frame(
    n_users: int = 40, *, n_positives: int = 4, neg_ratio: int = 3, own_contexts: bool = False
) -> pd.DataFrame:
    """Return user_id, user_ctx, book_id, book_text, label: positives and their negatives.

    Args:
        own_contexts: Whether every positive has its own context, as with leave-one-out contexts.
    """
    rows = []
    for user in range(n_users):
        for i in range(n_positives):
            number = i if own_contexts else 0
            context = f"Likes: Work {user % 7}-{number}. Genres: genre {user % 3}"
            for j in range(1 + neg_ratio):
                book = (user * 13 + i * 5 + j * 29) % 197
                text = f"Title: Book {book:03d} | Genres: genre {book % 3}"
                rows.append((f"u{user:03d}", context, book, text, int(j == 0)))
    columns = ["user_id", "user_ctx", "book_id", "book_text", "label"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.drop_duplicates(["user_id", "user_ctx", "book_text"], ignore_index=True)
