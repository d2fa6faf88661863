"""Stand-in of ai-toolkit's run.py at commit 27a03a9, which imports its trainers when they are asked for."""


def main():
    from extensions_built_in.sd_trainer.SDTrainer import SDTrainer

    SDTrainer().run()
