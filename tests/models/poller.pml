/* The threads of a poller: who waits for events, who receives, who runs tasks, and who takes over.
 *
 * Stands for
 *   poller.cc           Round, Sleep, MayLeave, Kick, TakeReady, Attend, RunTask, SpawnThread
 *   poller_permits.cc   TakePermit, Defer, ReleaseDeferred
 *   poller_guardian.cc  LookAfterThreads, as far as it starts threads: it may do so whenever nobody waits for events,
 *                       and does so in the end if that stays so; and hands over what a task leaves unattended
 *   server_session.cc   FindTask, Park, of sessions that hold one call after the other and a cancellation
 *
 * Two connections. The first begins CALLS calls whose handlers wait until they are cancelled, and then cancels them all.
 * The second begins one, whose handler returns at once; and something outside has an event of it delivered (Kick). MAX
 * threads may run handlers, and THREADS there may be. A visit may be over after any frame. A frame of the second
 * connection may put whoever receives it to sleep for good (STUCK): the right to its link then stays with that thread.
 *
 * Leaves out: the hot set; tasks that never block; that no connection may have more than its half; the backstop that the
 * guardian looks into the backlog as well.
 *
 * Memory: all that is modelled is seq_cst or guarded by a lock, but for the count of running tasks, of which
 * poller_permits.cc says why a relaxed look is enough.
 *
 * Checked: in a state from which nothing happens any more, every handler that could begin has begun and has ended, and
 * neither queue nor backlog has anything left. So whatever the handlers wait for is received.
 */

#ifndef CALLS
#define CALLS 2
#define MAX 1
#define THREADS 3
#endif

#define A 0
#define B 1
#define NOBODY 2

/* Connections. */
byte calls_in[2];  /* frames that begin calls, in the link */
bool reset_in;     /* behind them, A's */
bool cancelled;    /* A's calls */
byte queued[2];    /* calls, or events, that wait at the session for a thread */
byte done[2];
bool held[2], marked[2];
bool unattended[2]; /* a task may be running during which nobody is told of what there is */

/* Epoll: what it has to report. */
bool edge[2], ring, reports[2];

/* The poller. */
byte waiting, count;
bool ready[2];
bool backlog[2];
#define HAS_READY (ready[A] || ready[B])
byte running;      /* slots whose tasks_ is odd */
byte stuck;
bool lock;         /* threads_mutex_ */

inline ring_if_ready() {
  if
  :: HAS_READY ->
     if
     :: waiting > 0 -> ring = true
     :: else
     fi
  :: else
  fi
}

/* ReleaseDeferred, with what the lock guards in one step. */
inline release_deferred() {
  if
  :: atomic { running < MAX && backlog[A] -> backlog[A] = false; other = A }
  :: atomic { running < MAX && !backlog[A] && backlog[B] -> backlog[B] = false; other = B }
  :: atomic { else -> other = NOBODY }
  fi;
  if
  :: other != NOBODY ->
     ready[other] = true;
     ring_if_ready();
     other = NOBODY
  :: else
  fi
}

inline defer(c) {
  backlog[c] = true;
#ifndef MUTANT_DOES_NOT_LOOK_AGAIN
  release_deferred()
#endif
}

/* RunTask. */
inline run_task(c) {
#ifdef MUTANT_DEFERS_BEFORE_IT_PUTS_BACK
  if
  :: atomic { running >= MAX -> backlog[c] = true }
     release_deferred();
     queued[c]++;
     may_run = false
  :: atomic { else -> running++ }
#else
  running++; /* says that it runs a task, then asks */
  if
  :: atomic { running > MAX -> running-- }
     queued[c]++; /* PutBack */
     defer(c);
     may_run = false
  :: else
#endif
     if
     :: c == A -> cancelled /* blocks until then */
     :: else
     fi;
     atomic { done[c]++;
#ifdef MUTANT_LOOKS_BEFORE_IT_ENDS
     }
     release_deferred();
     atomic { running-- }
#else
     running-- }
     release_deferred()
#endif
  fi
}

/* Attend. */
inline attend(c) {
  atomic { may_run = (running < MAX) }
  over = false;
  do
  :: over -> break
  :: !over ->
     if
     :: atomic { queued[c] > 0 && may_run -> queued[c]--; unattended[c] = true }
        run_task(c)
     :: atomic { (queued[c] == 0 || !may_run) && held[c] -> marked[c] = true; over = true }
     :: atomic { (queued[c] == 0 || !may_run) && !held[c] -> held[c] = true; found = false }
        do
        :: atomic { calls_in[c] > 0 && !found -> calls_in[c]--;
             if
             :: may_run ->
                found = true;
                /* Parks before it runs the task, or says that there is more. */
                unattended[c] = unattended[c] || calls_in[c] > 0 || (c == A && reset_in)
             :: else -> queued[c]++
             fi
           }
#ifdef STUCK
           if
           :: c == B -> stuck++; false /* sleeps for good, with the right */
           :: c != B
           fi
#endif
           if
           :: !found -> /* the visit may be over after any frame */
              atomic { ready[c] = true; over = true }
              break
           :: true ->
              if
              :: found -> break
              :: else
              fi
           fi
        :: atomic { c == A && calls_in[A] == 0 && reset_in && !found -> reset_in = false; cancelled = true }
        :: atomic { !found && calls_in[c] == 0 && !(c == A && reset_in) -> reports[c] = true; over = true } /* Park */
           break
        od;
        /* Release: who finds a mark has it polled again. */
        atomic {
          held[c] = false;
          mark = marked[c];
          marked[c] = false
        }
        if
        :: mark -> mark = false; ready[c] = true; ring_if_ready()
        :: else
        fi;
        if
        :: !may_run && queued[c] > 0 -> defer(c)
        :: else
        fi;
        if
        :: found -> found = false; run_task(c)
        :: else
        fi
     fi
  od;
  atomic { over = false; found = false; may_run = false }
}

proctype thread() {
  bool may_run, over, found, mark, waits = true;
  byte other = NOBODY, reported = NOBODY, next = NOBODY;
round:
  atomic { reported = NOBODY; next = NOBODY }
  if
  :: HAS_READY -> /* asks epoll without waiting */
     if
     :: waits -> atomic { waits = false; waiting-- }
     :: else
     fi;
     if
     :: atomic { edge[A] && reports[A] -> edge[A] = false; reported = A }
     :: atomic { edge[B] && reports[B] -> edge[B] = false; reported = B }
     :: atomic { ring -> ring = false }
     :: true
     fi
  :: else ->
#ifdef MUTANT_DOES_NOT_LOOK_BEFORE_IT_SLEEPS
     if
     :: !waits -> atomic { waits = true; waiting++ }
     :: else
     fi;
#else
     if
     :: !waits -> atomic { waits = true; waiting++ }
     :: else
     fi;
     if
     :: HAS_READY -> goto round
     :: else
     fi;
#endif
     if
     :: atomic { edge[A] && reports[A] -> edge[A] = false; reported = A }
     :: atomic { edge[B] && reports[B] -> edge[B] = false; reported = B }
     :: atomic { ring -> ring = false }
#ifdef MUTANT_LEAVES_THOUGH_NOBODY_WAITS
     :: atomic { count > 2 -> count--; waiting-- }
#else
     :: atomic { count > 2 && waiting > 1 -> count--; waiting-- } /* MayLeave */
#endif
        goto end
     fi;
     atomic { waits = false; waiting-- }
  fi;
  if
  :: reported != NOBODY ->
#ifndef MUTANT_KEEPS_THE_QUEUE_TO_ITSELF
     ring_if_ready();
#endif
     if
     :: reported == A -> attend(A)
     :: else -> attend(B)
     fi
  :: else
  fi;
  /* TakeReady */
  if
  :: atomic { ready[A] -> ready[A] = false; next = A }
  :: atomic { ready[B] -> ready[B] = false; next = B }
  :: atomic { !HAS_READY -> next = NOBODY }
  fi;
  if
  :: next != NOBODY ->
#ifndef MUTANT_KEEPS_THE_QUEUE_TO_ITSELF
     ring_if_ready();
#endif
     if
     :: next == A -> attend(A)
     :: else -> attend(B)
     fi
  :: else
  fi;
  release_deferred();
  goto round;
end:
  skip
}

active proctype guardian() {
  do
#ifdef MUTANT_NOBODY_RECEIVES
  :: atomic { waiting == 0 && count < MAX + 1 && running < count -> count++; waiting++; run thread() }
#else
  :: atomic { waiting == 0 && count < THREADS -> count++; waiting++; run thread() }
#endif
  /* What a task leaves unattended that goes on for long. */
  :: atomic { unattended[A] -> unattended[A] = false; ready[A] = true; ring = ring || waiting > 0 }
  :: atomic { unattended[B] -> unattended[B] = false; ready[B] = true; ring = ring || waiting > 0 }
  od
}

/* The clients. */
active proctype client_a() {
  byte left = CALLS;
  do
  :: left > 0 -> atomic { left--; calls_in[A]++; edge[A] = true }
  :: left == 0 -> break
  od;
  atomic { reset_in = true; edge[A] = true }
}

active proctype client_b() {
  atomic { calls_in[B]++; edge[B] = true }
}

active proctype outsider() {
#ifndef STUCK
  queued[B]++;
  ready[B] = true;
  ring_if_ready()
#endif
}

init {
  atomic {
    reports[A] = true;
    reports[B] = true;
    count = 2;
    waiting = 2;
    run thread();
    run thread()
  }
  timeout;
#ifdef STUCK
  assert(done[A] == CALLS);
#else
  assert(done[A] == CALLS && done[B] == 2);
  assert(!HAS_READY && !backlog[A] && !backlog[B]);
#endif
}
