"""Phonons of many crystals: what ``phonopy-equivariant batch`` does.

How a structure becomes a line of the table:

1. ``run`` reads all structures (:mod:`.io.several`) and gives each a key: the hash of its name and
   content. Structures whose key has a record in the folder are done.
2. ``folder`` locks the folder, and compares its manifest (model and hash, versions, options) with
   that of this run: they are equal, or the run is refused.
3. ``dispatch`` gives structures to workers of Dask, two to each: one is computed, one waits.
   Structures of like size go to one worker. A structure travels as a :class:`.Crystal`, the
   potential as name and hash.
4. ``records`` is what a worker runs: the body of the command ``run`` on one structure. It returns
   a record, a dictionary of plain values, and the content of the files asked for. Workers write
   nothing, and need no folder in common with the client.
5. The client writes the files, each whole or not at all, and then appends the record as one line to
   ``records.jsonl``. A line that a crash cut off is no record and is removed by the next run.
6. ``result`` makes table and report of all records in the end.

So a structure is finished if and only if its line is in ``records.jsonl``, and only one process
writes there. Whatever is killed, the next run computes what has no line.
"""
