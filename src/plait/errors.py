"""Every error and warning of plait.

An error message says what was found and where, what was expected, and what to do. All errors
derive from `PlaitError`; those caused by what the caller gave derive from `InputError`, which is
also a `ValueError`. Warnings are classes, so that they can be filtered or made fatal one by one.
"""

from collections.abc import Sequence


class PlaitError(Exception):
    """Base of every error that plait raises on purpose."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument; a message is a message.
        return str(self.args[0]) if self.args else ""


class InputError(PlaitError, ValueError):
    """The input cannot be used as it stands."""


class ShapeError(InputError):
    """An array has the wrong number of dimensions or the wrong lengths."""


class LabelError(InputError, KeyError):
    """A label is unknown, duplicated, or two sets of labels differ."""


class MissingCovariateError(InputError):
    """A covariate has missing values."""


class TooFewSamplesError(InputError):
    """Too few samples are left for the model."""


class ConstantTraitError(InputError):
    """A trait does not vary, or only with the covariates."""


class OptionError(InputError):
    """An option is unknown, out of range, or conflicts with another one."""


class InputTypeError(InputError, TypeError):
    """A value has the wrong type."""


class MissingAttributeError(InputError, AttributeError):
    """An object lacks an attribute that is needed."""


class FileFormatError(InputError):
    """A file cannot be read as what it claims to be."""


class UnknownGenotypeFormatError(FileFormatError):
    """A file is none of the genotype formats that plait reads.

    Attributes
    ----------
    tried : tuple of str
        The formats that it was compared with.
    """

    def __init__(self, message: str, tried: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.tried = tuple(tried)


class MissingSidecarError(FileFormatError):
    """A file is not there: the one that was named, or one that belongs to it."""


class TruncatedFileError(FileFormatError):
    """A file is shorter or longer than its own description says."""


class UnsupportedLayoutError(FileFormatError):
    """A file is of a known format, in a layout that plait does not read."""


class UnknownDialectError(FileFormatError):
    """The columns of a table of summary statistics are none that plait knows."""


class AmbiguousAlleleColumnsError(FileFormatError):
    """The header of a table does not say which allele the effect is of."""


class HarmonisationError(InputError):
    """No variant of a table can be brought to the alleles of the reference."""


class GenomeBuildError(InputError):
    """Positions are of different genome builds."""


class DuplicateSampleError(LabelError):
    """A sample occurs twice."""


class OutputError(InputError):
    """An output cannot be written where it was asked for."""


class NotPositiveDefiniteError(InputError):
    """A covariance matrix is not positive (semi-)definite."""


class NotAvailableError(InputError):
    """A result does not hold the quantity that was asked for."""


class ConvergenceError(PlaitError, RuntimeError):
    """A computation ended without a usable result."""


class CapacityError(PlaitError, MemoryError):
    """More memory is needed than is reasonable; the message names the option that reduces it."""


class DependencyError(PlaitError, ModuleNotFoundError):
    """An optional library is missing; the message names the extra that installs it."""


class PlaitWarning(UserWarning):
    """Base of every warning of plait."""


class DataWarning(PlaitWarning):
    """The data are usable but something about them deserves attention."""


class ModelWarning(PlaitWarning):
    """A modelling choice is likely to mislead."""


class ConvergenceWarning(PlaitWarning):
    """An iteration stopped before its criterion was met."""
