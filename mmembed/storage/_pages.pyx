"""What storage asks the system about the pages of a map, and asks it to read.

What takes long runs without the GIL. What is short keeps it: to get it back can take milliseconds.

Must not know tables, columns or policy: it sees an address, page numbers and marks. Every function
has a body in Python in `storage/page_calls.py`, used where this is not built.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t

cdef extern from "<sys/mman.h>" nogil:
    int MADV_WILLNEED
    int madvise(void* address, size_t length, int advice)
    int mincore(void* address, size_t length, unsigned char* vector)

cdef extern from *:
    """
    static inline void full_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
    """
    void full_fence() nogil

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* out, size_t count, long offset)

cdef extern from "<sys/resource.h>" nogil:
    int RUSAGE_SELF
    cdef struct rusage:
        long ru_majflt
        long ru_inblock
    int getrusage(int who, rusage* usage)

cdef extern from "reader.h" nogil:
    ctypedef struct reader_job:
        uintptr_t address
        size_t length
        int shift
        const int64_t* pages
        Py_ssize_t count
        uint8_t* marks
        uint8_t passed
        uint8_t mark
        int64_t calls
        int64_t asked
        int finished
    int reader_submit(reader_job* job)
    void reader_settle()
    void reader_cancel(reader_job* job)
    void reader_after_fork()

ctypedef fused id_type:
    int32_t
    int64_t


def pages_of(
    const id_type[::1] ids,  # IN   (n,); those outside 0..rows-1 are passed over
    Py_ssize_t rows,
    Py_ssize_t row_bytes,
    Py_ssize_t first,  # byte at which row 0 begins
    int shift,  # a page has 1 << shift bytes
    const uint8_t[::1] marks,  # IN   (pages,)
    int passed,  # pages with this mark are passed over
    int64_t[::1] out,  # OUT  (n * pages that one row can touch,)
):
    """Write the pages that rows lie in, as the ids come; returns how many, repeats included."""
    cdef Py_ssize_t i, n = ids.shape[0], count = 0
    cdef int64_t page, last, before = -1
    for i in range(n):
        if ids[i] < 0 or ids[i] >= rows:
            continue
        page = (first + <int64_t>ids[i] * row_bytes) >> shift
        last = (first + <int64_t>ids[i] * row_bytes + row_bytes - 1) >> shift
        while page <= last:
            if page != before and marks[page] != passed:
                out[count] = page
                count += 1
            before = page
            page += 1
    return count


def unset_of(
    const id_type[::1] ids,  # IN   (n,); those outside 0..rows-1 are passed over
    Py_ssize_t rows,
    int shift,  # a block has 1 << shift rows
    const uint8_t[::1] bits,  # IN   one per block
    int64_t[::1] out,  # OUT  (n,)
):
    """Write the places of ids that lie in blocks whose bit is off; returns how many."""
    cdef Py_ssize_t i, n = ids.shape[0], count = 0
    cdef int64_t block
    for i in range(n):
        if ids[i] < 0 or ids[i] >= rows:
            continue
        block = <int64_t>ids[i] >> shift
        if not (bits[block >> 3] >> (block & 7)) & 1:
            out[count] = i
            count += 1
    return count


def read_ahead(
    uintptr_t address,  # of the map
    Py_ssize_t length,  # of the map, bytes
    int shift,
    const int64_t[::1] pages,  # IN     (n,) ascending, with repeats
    uint8_t[::1] marks,  # INOUT  (pages,)
    int passed,  # pages with this mark are passed over
    int mark,  # given to pages that were asked for; -1: none
):
    """Ask the system to read pages, neighbours in one call; returns (calls, pages)."""
    cdef Py_ssize_t i = 0, n = pages.shape[0], calls = 0, asked = 0
    cdef int64_t page, start, stop, k
    cdef size_t begin, end
    with nogil:
        while i < n:
            if marks[pages[i]] == passed:
                i += 1
                continue
            start = pages[i]
            stop = start + 1
            i += 1
            while i < n and pages[i] <= stop and marks[pages[i]] != passed:
                stop = max(stop, pages[i] + 1)
                i += 1
            begin = <size_t>start << shift
            end = min(<size_t>stop << shift, <size_t>length)
            madvise(<void*>(address + begin), end - begin, MADV_WILLNEED)
            calls += 1
            asked += stop - start
            if mark >= 0:
                for k in range(start, stop):
                    marks[k] = mark
    return calls, asked


def resident(
    uintptr_t address,
    int shift,
    const int64_t[::1] pages,  # IN  (n,)
):
    """Return how many of these pages are in memory."""
    cdef Py_ssize_t i, count = 0
    cdef unsigned char there
    for i in range(pages.shape[0]):
        there = 0
        if mincore(<void*>(address + (<size_t>pages[i] << shift)), 1, &there) == 0:
            count += there & 1
    return count


def set_marks(uint8_t[::1] marks, const int64_t[::1] pages, int mark):
    """Set marks[pages] = mark."""
    cdef Py_ssize_t i
    for i in range(pages.shape[0]):
        marks[pages[i]] = mark


def major_faults():
    """Return how many pages this process has waited for so far."""
    cdef rusage usage
    getrusage(RUSAGE_SELF, &usage)
    return usage.ru_majflt


def bytes_read():
    """Return how many bytes this process has had read from disks so far."""
    cdef rusage usage
    getrusage(RUSAGE_SELF, &usage)
    return <int64_t>usage.ru_inblock << 9


def read_each(
    int fd,
    const int64_t[::1] offsets,  # IN   (n,)
    uint8_t[::1] out,  # OUT  as many bytes as each read takes
):
    """Read a piece of a file at each offset, one after the other; returns how many were whole."""
    cdef Py_ssize_t i, whole = 0, size = out.shape[0]
    with nogil:
        for i in range(offsets.shape[0]):
            whole += pread(fd, &out[0], size, offsets[i]) == size
    return whole


def read_pieces(
    int fd,
    const int64_t[::1] offsets,  # IN     (n,)
    const int64_t[::1] places,  # IN     (n,)
    uint8_t[:, ::1] out,  # INOUT  (rows, bytes of a piece,)
):
    """Read the piece at each offset into out[place]; returns how many were whole."""
    cdef Py_ssize_t i, whole = 0, size = out.shape[1]
    with nogil:
        for i in range(offsets.shape[0]):
            whole += pread(fd, &out[places[i], 0], size, offsets[i]) == size
    return whole


def fence():
    """Let no load or store before this be seen after one behind it."""
    full_fence()


def resident_of(
    uintptr_t address,  # of a map, or of a page in it
    Py_ssize_t pages,
    int shift,
    unsigned char[::1] work,  # INOUT  (as many as are looked at in one call,)
):
    """Return how many of `pages` pages from `address` on are in memory."""
    cdef Py_ssize_t at = 0, i, some, count = 0
    with nogil:
        while at < pages:
            some = min(pages - at, work.shape[0])
            if mincore(
                <void*>(address + (<size_t>at << shift)), <size_t>some << shift, &work[0]
            ) == 0:
                for i in range(some):
                    count += work[i] & 1
            at += some
    return count


@cython.no_gc_clear  # what is kept must outlive the job
cdef class Job:
    """Pages that a thread without Python asks for, until `cancel`; see `reader.h`."""

    cdef reader_job job
    cdef object kept  # what the thread uses: pages, marks, and the owner of the map
    cdef bint submitted

    def __init__(
        self,
        owner,
        uintptr_t address,
        Py_ssize_t length,
        int shift,
        const int64_t[::1] pages,  # IN     (n,) n > 0, ascending, with repeats
        uint8_t[::1] marks,  # INOUT  (pages,)
        int passed,
        int mark,
    ):
        """Submit the job. Whoever makes it keeps it until it is finished or cancelled."""
        self.kept = (owner, pages, marks)
        self.job.address = address
        self.job.length = length
        self.job.shift = shift
        self.job.pages = &pages[0]
        self.job.count = pages.shape[0]
        self.job.marks = &marks[0]
        self.job.passed = passed
        self.job.mark = mark
        self.submitted = True
        with nogil:
            reader_submit(&self.job)

    @property
    def counts(self):
        """Calls made and pages asked for."""
        return self.job.calls, self.job.asked

    def cancel(self):
        """End the job, now if it has not begun; it is finished when this returns."""
        with nogil:
            reader_cancel(&self.job)

    def __dealloc__(self):
        if self.submitted and not self.job.finished:
            with nogil:
                reader_cancel(&self.job)


def settle():
    """Return when every job is finished."""
    with nogil:
        reader_settle()


def after_fork_in_child():
    """Forget the thread and its jobs, which the child does not have."""
    reader_after_fork()
