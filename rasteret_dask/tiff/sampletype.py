"""Which NumPy type the samples of a TIFF become."""

from __future__ import annotations

from rasteret_dask.errors import UnsupportedTiffError

_UNSIGNED, _SIGNED, _FLOAT, _VOID, _COMPLEX_INT, _COMPLEX = 1, 2, 3, 4, 5, 6


def sample_dtype(bits: int, sample_format: int) -> str:
    """Return the NumPy name of decoded samples.

    Integers of odd depths go into the next wider type, 24-bit floats into ``float32``. Complex
    integers become ``complex64`` (2 × 16 bits) or ``complex128`` (2 × 32 bits): the narrowest types
    that hold them exactly, and ``bits`` tells them from true complex floats.

    Raises
    ------
    UnsupportedTiffError
        For a combination that has no NumPy type.
    """
    if sample_format in (_UNSIGNED, _VOID):
        for width in (8, 16, 32):
            if 1 <= bits <= width:
                return f"uint{width}"
        if bits == 64:
            return "uint64"
    elif sample_format == _SIGNED and bits in (8, 16, 24, 32, 64):
        return "int32" if bits == 24 else f"int{bits}"
    elif sample_format == _FLOAT and bits in (16, 24, 32, 64):
        return "float32" if bits == 24 else f"float{bits}"
    elif sample_format == _COMPLEX_INT and bits in (32, 64):
        return "complex64" if bits == 32 else "complex128"
    elif sample_format == _COMPLEX and bits in (64, 128):
        return f"complex{bits}"
    raise UnsupportedTiffError(
        f"samples of {bits} bits with sample format {sample_format} are not read",
        tag="BitsPerSample" if sample_format in range(1, 7) else "SampleFormat",
    )
