"""Silences, one by one and by name, what other libraries say that a user cannot act on."""

import logging
import warnings


class _Without(logging.Filter):
    """Drops the log records that contain one of the texts."""

    def __init__(self, *texts: str):
        super().__init__()
        self.texts = texts

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(text in record.getMessage() for text in self.texts)


def quiet() -> None:
    """Called once by a command before it starts to work; importing this package silences nothing."""
    # Lightning's own use of a torch function that torch has renamed.
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*deprecated")
    # It is meant so: the module draws the noise of whatever dataset it is given.
    warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`")
    # Such an image is left out, and listed with the reason.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit", module="PIL")
    # Small datasets have short epochs; the interval counts steps of the whole run.
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    # A validation has been summed over the processes before it is logged; how long pictures took, rank 0 alone knows.
    warnings.filterwarnings("ignore", message=r"It is recommended to use .*sync_dist=True")
    # Lightning's own use of it, where a part of a step's losses is gathered.
    warnings.filterwarnings("ignore", message=r"torch\.distributed\.nn\.functional\.all_gather is deprecated")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        _Without(
            "Tip: For seamless cloud",  # an advertisement
            "GPU available",  # the run's first line says what is used
            "TPU available",
            "`Trainer.fit` stopped",  # our own last lines say it
            "Detected KeyboardInterrupt",
        )
    )
    # Of the ONNX export: the weights of q, k and v stay one tensor that is split, which costs nothing worth folding.
    logging.getLogger("onnxscript.optimizer._constant_folding").addFilter(_Without("Skipping constant folding"))
