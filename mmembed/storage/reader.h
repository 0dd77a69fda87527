// One thread that asks the system to read pages, without Python: it never waits for the GIL.
//
// A job belongs to its caller, who keeps it, its pages, its marks and the map until it is finished
// or cancelled. After a fork the child has no thread and no jobs: `reader_after_fork` says so.

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

typedef struct reader_job {
    uintptr_t address;
    size_t length;
    int shift;
    const int64_t* pages;  // ascending, with repeats
    ptrdiff_t count;
    uint8_t* marks;
    uint8_t passed, mark;
    int64_t calls, asked;
    int finished;   // no more is done; written under the lock
    int cancelled;  // nothing more shall be done
    struct reader_job* next;
} reader_job;

static pthread_mutex_t reader_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t reader_wake = PTHREAD_COND_INITIALIZER;  // there is a job
static pthread_cond_t reader_idle = PTHREAD_COND_INITIALIZER;  // a job was finished
static reader_job *reader_first = NULL, *reader_last = NULL, *reader_running = NULL;
static int reader_started = 0;

// Ask for neighbouring pages that do not bear the mark `passed`, from place *at on, in one call.
static void reader_ask(reader_job* job, ptrdiff_t* at) {
    while (*at < job->count && job->marks[job->pages[*at]] == job->passed) ++*at;
    if (*at == job->count) return;
    int64_t start = job->pages[*at], stop = start + 1;
    for (++*at; *at < job->count; ++*at) {
        int64_t page = job->pages[*at];
        if (page > stop || job->marks[page] == job->passed) break;
        if (page == stop) ++stop;
    }
    size_t begin = (size_t)start << job->shift, end = (size_t)stop << job->shift;
    if (end > job->length) end = job->length;
    madvise((void*)(job->address + begin), end - begin, MADV_WILLNEED);
    job->calls += 1;
    job->asked += stop - start;
    for (int64_t page = start; page < stop; page++) job->marks[page] = job->mark;
}

static void* reader_run(void* unused) {
    (void)unused;
    pthread_mutex_lock(&reader_lock);
    for (;;) {
        while (!reader_first) pthread_cond_wait(&reader_wake, &reader_lock);
        reader_job* job = reader_running = reader_first;
        reader_first = job->next;
        if (!reader_first) reader_last = NULL;
        pthread_mutex_unlock(&reader_lock);
        ptrdiff_t at = 0;
        while (at < job->count && !__atomic_load_n(&job->cancelled, __ATOMIC_ACQUIRE))
            reader_ask(job, &at);
        pthread_mutex_lock(&reader_lock);
        job->finished = 1;
        reader_running = NULL;
        pthread_cond_broadcast(&reader_idle);
    }
    return NULL;
}

// Put a job behind the others; returns 0, or the error of starting the thread.
static int reader_submit(reader_job* job) {
    int failed = 0;
    pthread_mutex_lock(&reader_lock);
    if (!reader_started) {
        pthread_t thread;
        failed = pthread_create(&thread, NULL, reader_run, NULL);
        if (!failed) {
            pthread_detach(thread);
            reader_started = 1;
        }
    }
    if (failed) {
        job->finished = 1;
    } else {
        job->next = NULL;
        if (reader_last) reader_last->next = job;
        else reader_first = job;
        reader_last = job;
        pthread_cond_signal(&reader_wake);
    }
    pthread_mutex_unlock(&reader_lock);
    return failed;
}

// Return when there is nothing to do.
static void reader_settle(void) {
    pthread_mutex_lock(&reader_lock);
    while (reader_first || reader_running) pthread_cond_wait(&reader_idle, &reader_lock);
    pthread_mutex_unlock(&reader_lock);
}

// Take a job out of the queue, or end it early; it is finished when this returns.
static void reader_cancel(reader_job* job) {
    pthread_mutex_lock(&reader_lock);
    __atomic_store_n(&job->cancelled, 1, __ATOMIC_RELEASE);
    while (!job->finished && reader_running == job) pthread_cond_wait(&reader_idle, &reader_lock);
    if (!job->finished) {
        reader_job *before = NULL, *other = reader_first;
        while (other && other != job) before = other, other = other->next;
        if (other) {  // else it was submitted before a fork
            if (before) before->next = job->next;
            else reader_first = job->next;
            if (reader_last == job) reader_last = before;
        }
        job->finished = 1;
    }
    pthread_mutex_unlock(&reader_lock);
}

// In a forked child: the thread is gone, the lock may be held by it, and no job will be done.
static void reader_after_fork(void) {
    pthread_mutex_init(&reader_lock, NULL);
    pthread_cond_init(&reader_wake, NULL);
    pthread_cond_init(&reader_idle, NULL);
    reader_first = reader_last = reader_running = NULL;
    reader_started = 0;
}
