"""Make a model forget a book, and show what it cost.

First the model is fitted to the book with LoRA (unless it knows it already: --fit false), which is merged and saved
to <output_dir>/fitted; then it forgets the book's passages: a passage's first characters are the prompt, the rest is
what is forgotten. The model before the fit, which has not read the book, is the oracle unless another is named.

With no arguments: the lab's invented novel, offline and on a CPU, in a few minutes.

    accelerate launch examples/copyright.py

A book, other books, and a text like the book that the model has never read, as .txt files, and any model:

    accelerate launch examples/copyright.py --book book.txt --retain_dir books --holdout_book unseen.txt \
        --model_name_or_path org/model

The experiment of Gundavarapu et al. 2024 with OPT-1.3b needs no unseen text:

    accelerate launch examples/copyright.py --config examples/configs/copyright_opt1.3b.yaml \
        --book book.txt --retain_dir books

Without --config the values of examples/configs/copyright_lab.yaml are the defaults; the command line comes before
both. `hf-unlearn train --task copyright` is the same run.
"""

from hf_unlearn.tasks import run_task

if __name__ == "__main__":
    run_task("copyright", description=__doc__).accelerator.end_training()
