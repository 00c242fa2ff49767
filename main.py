"""Run the pipeline: raw book tables in, a fine-tuned and evaluated cross-encoder in MLflow out.

python main.py                                              the demo data, on any machine
python main.py data=bookdb data.root=FOLDER                 real tables
torchrun --nproc_per_node=2 main.py                         training in two processes
python main.py -m model=minilm,bge sampling.neg_ratio=3,5   a sweep (needs the model hub)

`reranker run` is the same command. The function with the decorator @hydra.main, whose name the
shell completion looks for in this file, is `reranker.cli.run.job`.
"""

from __future__ import annotations

from reranker.cli.run import main

if __name__ == "__main__":
    main()
