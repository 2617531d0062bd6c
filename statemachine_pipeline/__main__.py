"""``python -m statemachine_pipeline`` is the command line."""

from statemachine_pipeline.cli import main

if __name__ == "__main__":
    main()
