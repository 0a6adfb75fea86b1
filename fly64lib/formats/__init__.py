"""Other programs' scan files: read into DATA-001 (:mod:`~fly64lib.formats.importing`), written from
it (:mod:`~fly64lib.formats.exporting`).

A format (:mod:`~fly64lib.formats.base`) only finds what a file holds and says it as a
:class:`~fly64lib.formats.raw.RawScan`; everything that decides numbers (counts or amplitude, crop,
bin, units, orientation) is common to all formats and stands beside it."""
