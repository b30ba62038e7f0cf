"""Silences individual messages of other libraries that a user cannot act on."""

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
    # Lightning calls a torch function that torch has renamed.
    warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*deprecated")
    # Intended: the module draws the noise for any dataset.
    warnings.filterwarnings("ignore", message="You have overridden `on_before_batch_transfer`")
    # Such an image is skipped, and listed with the reason.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit", module="PIL")
    # Small datasets have short epochs; the interval counts steps of the whole run.
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
    # A validation is summed over the processes before it is logged; the time for images is known to rank 0 only.
    warnings.filterwarnings("ignore", message=r"It is recommended to use .*sync_dist=True")
    # Lightning calls it to gather the losses of a step.
    warnings.filterwarnings("ignore", message=r"torch\.distributed\.nn\.functional\.all_gather is deprecated")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        _Without(
            "Tip: For seamless cloud",  # an advertisement
            "GPU available",  # the first line of a run names the device
            "TPU available",
            "`Trainer.fit` stopped",  # the last lines of the command report it
            "Detected KeyboardInterrupt",
        )
    )
    # ONNX export: the weights of q, k and v stay one tensor that is split; folding would not be worthwhile.
    logging.getLogger("onnxscript.optimizer._constant_folding").addFilter(_Without("Skipping constant folding"))
