/* Who of a client's threads looks at the link: two threads that wait for calls of their own, and the poller.
 *
 * Stands for
 *   client_session_wait.cc    WaitUntil, PollUntil, HandOver, ReleaseRight, PassOn, ElectWaiter, NotifyWaiter,
 *                             AcquireForPoller, Poll, Park
 *   client_session.cc         StartCall (from AddCall on), TakeCall, QueueEnd, EndCall, PopEnded, Fail as far as it
 *                             wakes
 *   client_session_receive.cc ReceiveOne
 *   session.cc, session.h     OnEvents, BeginReceiving, ReportInput, SleepOnLink, WakeSleeper, HasWaiters
 *   poller.h, poller.cc       PollRight, Kick, WaitForEvents, Attend
 *
 * Leaves out: sending, and with it room; streams; keepalive; callbacks that take long, and so the guardian; how the link
 * parks, which ring.pml is about: here it either parks or finds something, and the server rings once for each time. The
 * server answers when it likes, but always. Several kicks at once count as one. The condition variable wakes nobody
 * without being signalled.
 *
 * Memory: all that is modelled is seq_cst in the code or guarded by a lock. What is done with a lock, and is short, is one
 * step, together with the change of waiter_count that it stands next to.
 *
 * Checked: in a state from which nothing happens any more, all who make calls have gone home, which they do between two
 * calls. So nobody waits for ever. One of the waiting threads has a deadline, which may pass at any time or never. With
 * ENDS the server may close the connection. With CANCELS the first thread's call is never answered, but cancelled by
 * another thread. With ABANDONS the asynchronous calls but the last may be cancelled.
 */

/* How many there are of what. */
#ifndef THREADS
#define THREADS 2
#define CALLS 1 /* of each */
#define ASYNC_CALLS 1
#define POLLERS 1
#endif

#define A 2 /* the asynchronous call; 0 and 1 are those of the threads */
#define NOBODY 3

#define HELD 1
#define MARKED 2
byte right;

bool in_table[3];  /* in the table of calls */
bool done[3];    /* its end was delivered */
bool asked[3];   /* the server has the request */
bool reply[3];   /* is in the link; of several the first is received first */
#define NO_REPLY (!reply[0] && !reply[1] && !reply[A])

bool link_ended;
bool poller_present, poller_receives;
byte async_calls;
bool has_ended; /* there is a callback for the poller to run */

byte waiter_count;
bool waiters_mutex;
bool waits[2], elected[2], signalled[2];
byte sleeper = NOBODY;
bool event[2];
bool expired[2];

/* The link. */
bool parked, rung;
bool bell, end, hung_up;
bool edge, reports_input; /* epoll has to report something; and for doorbells, too */
bool woken, woken_by_end, hang_up_reported;
bool kicked;

byte at_home; /* of the three that make calls */

inline try_acquire(result) {
  atomic { result = (right == 0); right = (right == 0 -> HELD : right) }
  if
  :: !result -> atomic { result = ((right & HELD) == 0); right = HELD | MARKED }
  :: else
  fi
}

inline release(marked) {
  atomic { marked = ((right & MARKED) != 0); right = 0 }
}

inline note_events() {
  woken = true;
  woken_by_end = woken_by_end || end;
  hang_up_reported = hang_up_reported || end
}

/* BeginReceiving; DrainWakeups: see ring.pml. */
inline begin_receiving() {
  atomic {
    parked = false;
    rung = false;
    if
    :: woken ->
       hung_up = hung_up || woken_by_end || (end && !bell);
       woken = false;
       woken_by_end = false;
       bell = false
    :: else
    fi
  }
}

inline prepare_to_park(result) {
  if
  :: hung_up -> result = false
  :: else ->
     atomic {
       result = NO_REPLY;
       rung = rung && parked && result;
       parked = result
     }
  fi
}

inline report_input(on) {
  atomic {
    if
    :: reports_input != on ->
       reports_input = on;
       edge = edge || (bell && on) || end
    :: else
    fi
  }
}

/* NotifyWaiter, after done[call] has been set. */
#ifdef MUTANT_LOOKS_FOR_WAITERS_TOO_EARLY
byte counted; /* by the application, before it ended the call */
#define COUNT counted
#else
#define COUNT waiter_count
#endif
inline notify(call) {
  if
  :: COUNT > 0 ->
     atomic {
       !waiters_mutex ->
       if
       :: waits[call] -> signalled[call] = true
       :: else
       fi;
       if
       :: sleeper != NOBODY -> event[sleeper] = true
       :: else
       fi
     }
  :: else
  fi
}

#define EMPTY 0
#define FRAME 1
#define END 2

/* ReceiveOne, with what becomes of the frame. */
inline receive_one(got) {
  if
  :: atomic { link_ended -> got = END }
  :: atomic { /* with TakeCall or QueueEnd */
       !link_ended && !NO_REPLY ->
       got = FRAME;
       call = (reply[A] -> A : (reply[0] -> 0 : 1));
       reply[call] = false;
       if
       :: in_table[call] ->
          in_table[call] = false;
          if
          :: call == A -> async_calls--; has_ended = true /* QueueEnd */
          :: else
          fi
       :: else -> call = NOBODY
       fi
     }
     if
     :: call == NOBODY
     :: call == A ->
        if
        :: !poller_receives -> kicked = true
        :: else
        fi
     :: else ->
        done[call] = true;
        notify(call)
     fi;
     call = 0
  :: atomic { !link_ended && NO_REPLY -> got = (hung_up -> END : EMPTY) }
     if
     :: got == END -> fail()
     :: else
     fi
  fi
}

/* Fail */
inline fail() {
  link_ended = true;
  atomic {
    if
    :: in_table[A] -> in_table[A] = false; async_calls--; has_ended = true; kicked = true
    :: else
    fi
  }
  atomic {
    if
    :: in_table[0] -> in_table[0] = false; call = 0
    :: else -> call = NOBODY
    fi
  }
  if
  :: call == 0 -> done[0] = true; notify(0)
  :: else
  fi;
  atomic {
    if
    :: in_table[1] -> in_table[1] = false; call = 1
    :: else -> call = NOBODY
    fi
  }
  if
  :: call == 1 -> done[1] = true; notify(1)
  :: else
  fi;
  atomic { !waiters_mutex -> signalled[0] = waits[0] || signalled[0]; signalled[1] = waits[1] || signalled[1]; call = 0 }
}

inline elect_waiter(result) {
  atomic {
    !waiters_mutex ->
    result = true;
    if
    :: elected[0] || elected[1] /* it is on its way */
    :: !elected[0] && !elected[1] && waits[0] -> elected[0] = true; signalled[0] = true
    :: !elected[0] && !elected[1] && waits[1] -> elected[1] = true; signalled[1] = true
    :: else -> result = false
    fi
  }
}

inline pass_on(is_parked) {
  flag = false;
  if
  :: waiter_count > 0 -> elect_waiter(flag)
  :: else
  fi;
  if
  :: !flag && !link_ended ->
     if
     :: async_calls == 0 ->
#ifndef MUTANT_BELIEVES_THAT_THE_POLLER_IS_THERE
        if
        :: !is_parked -> poller_present = false
        :: else
        fi;
#endif
        flag = (async_calls == 0)
     :: else
     fi;
     if
     :: !flag ->
        atomic { flag = poller_present; poller_present = true }
        if
        :: !flag || !is_parked -> kicked = true
        :: else
        fi
     :: else
     fi
  :: else
  fi;
  flag = false
}

inline hand_over() {
  flag = false;
#ifdef MUTANT_DOES_NOT_PARK_FOR_THE_POLLER
  flag = true;
#endif
  do
  :: !flag && waiter_count == 0 && async_calls > 0 && poller_present && !link_ended ->
     prepare_to_park(flag);
     if
     :: !flag -> receive_one(got); got = EMPTY
     :: else
     fi
  :: else -> break
  od;
  was_parked = flag;
  release(flag);
  if
  :: flag && hang_up_reported && !link_ended -> kicked = true
  :: else
  fi;
  pass_on(was_parked);
  was_parked = false
}

proctype waiting_thread(byte me) {
  bool acquired, is_elected, flag, was_parked, may_expire;
  byte got, call, left = CALLS;

idle:
  if
  :: left == 0 -> goto home
  :: atomic { else -> in_table[me] = !link_ended; done[me] = link_ended }
  fi;
  asked[me] = in_table[me];
#ifndef CANCELS
  may_expire = (me == 0);
#endif

again: /* WaitUntil */
  if
  :: atomic { done[me] && is_elected -> is_elected = false }
#ifndef MUTANT_ENDS_WITHOUT_PASSING_ON
     pass_on(false);
#endif
     goto ended
  :: done[me] && !is_elected -> goto ended
  :: else
  fi;
  if
  :: !link_ended -> try_acquire(acquired)
  :: else
  fi;
  if
  :: !acquired ->
     atomic { !waiters_mutex -> waiters_mutex = true; waits[me] = true; elected[me] = false; waiter_count++ }
     do
     :: done[me] || elected[me] || (may_expire && expired[me]) -> break
     :: else ->
#ifndef MUTANT_DOES_NOT_TRY_ONCE_MORE
        if
        :: !link_ended -> try_acquire(acquired)
        :: else
        fi;
        if
        :: acquired -> break
        :: else
        fi;
#endif
        atomic { waiters_mutex = false; signalled[me] = false }
        atomic { (signalled[me] || (may_expire && expired[me])) && !waiters_mutex -> waiters_mutex = true }
     od;
     atomic {
       is_elected = elected[me];
       elected[me] = false;
       signalled[me] = false;
       waits[me] = false;
       waiter_count--;
       waiters_mutex = false
     }
  :: else
  fi;
  if
  :: acquired -> atomic { is_elected = false; acquired = false; goto poll_until }
  :: else -> goto check_expired
  fi;

poll_until:
  begin_receiving();
  do
  :: receive_one(got);
     if
     :: done[me] || got == END -> break
     :: else
     fi;
     if
     :: atomic { got == FRAME -> got = EMPTY }
     :: got == EMPTY && may_expire && expired[me] -> break
     :: got == EMPTY && !(may_expire && expired[me]) -> /* or spins */
        prepare_to_park(flag);
        if
        :: atomic { flag -> flag = false }
           /* SleepOnLink */
           atomic { !waiters_mutex -> sleeper = me; waiter_count++ }
           if
           :: !done[me] ->
              atomic {
                bell || end || event[me] || (may_expire && expired[me]) ->
                if
                :: bell || end -> note_events()
                :: else
                fi
              }
           :: else
           fi;
           atomic { !waiters_mutex -> sleeper = NOBODY; event[me] = false; waiter_count-- }
        :: else
        fi;
        begin_receiving();
        if
        :: done[me] -> break
        :: else
        fi
     fi
  od;
  got = EMPTY;
  hand_over();

check_expired:
  if
  :: !(may_expire && expired[me]) || done[me] -> goto again
  :: else
  fi;
#ifndef MUTANT_EXPIRES_WITHOUT_PASSING_ON
  if
  :: is_elected -> pass_on(false)
  :: else
  fi;
#endif
  is_elected = false;
  /* Cancelled, unless somebody has taken the call and is about to deliver its end. */
  atomic {
    may_expire = false;
    if
    :: in_table[me] -> in_table[me] = false
    :: else -> goto again
    fi
  }
  goto home;

ended:
  done[me] = false;
  asked[me] = false;
  left--;
  goto idle;
home:
  at_home++
}

/* Starts asynchronous calls. */
active proctype application() {
  bool flag;
  byte left = ASYNC_CALLS;
#ifdef CANCELS
#ifdef MUTANT_LOOKS_FOR_WAITERS_TOO_EARLY
  counted = waiter_count;
#endif
  atomic { in_table[0] -> in_table[0] = false }
  done[0] = true;
  notify(0);
  goto home;
#endif
idle:
  if
  :: left == 0 || link_ended -> goto home
  :: atomic { else -> left--; in_table[A] = true; async_calls++ }
  fi;
  asked[A] = true;
  flag = poller_present;
  if
  :: !flag -> atomic { flag = poller_present; poller_present = true }
  :: else
  fi;
  if
  :: !flag -> kicked = true
  :: else
  fi;
  flag = false;
  if
  :: atomic { done[A] -> done[A] = false; asked[A] = false }
#ifdef ABANDONS
  :: atomic { /* TakeCall; an answer finds nothing, so it is as good as if there were none */
       in_table[A] && left > 0 -> in_table[A] = false; async_calls--; asked[A] = false; reply[A] = false
     }
#endif
  fi;
  goto idle;
home:
  at_home++
}

inline acquire_for_poller(result) {
  if
  :: !poller_present -> poller_present = true
  :: else
  fi;
  try_acquire(result);
  if
  :: !result ->
     poller_present = false;
#ifndef MUTANT_POLLER_TRIES_ONCE
     try_acquire(result);
     if
     :: result -> poller_present = true
     :: else
     fi
#endif
  :: else
  fi
}

proctype poller() {
  bool flag, marked, spins;
  byte got, call;

wait: /* epoll_wait */
  if
  :: atomic { kicked -> kicked = false }
  :: atomic {
       edge -> edge = false;
       if
       :: (bell && reports_input) || end -> note_events()
       :: else -> goto wait
       fi
     }
  fi;

poll:
  if
  :: atomic { has_ended -> has_ended = false }
     done[A] = true; /* runs the callback */
     goto poll
  :: else
  fi;
  if
  :: link_ended -> goto wait
  :: else
  fi;
  acquire_for_poller(flag);
  if
  :: !flag -> goto wait
  :: atomic { else -> flag = false }
  fi;
  poller_receives = true;
  begin_receiving();
  do
  :: receive_one(got);
     if
     :: got != FRAME || has_ended -> break
     :: got == FRAME && !(has_ended && NO_REPLY) /* a few more that are there */
     fi
  od;
  poller_receives = false;
  release(marked);
  if
  :: waiter_count > 0 ->
     poller_present = false;
     elect_waiter(flag);
     if
     :: atomic { flag && !has_ended -> flag = false; marked = false; got = EMPTY; goto wait }
     :: atomic { else -> flag = false }
     fi
  :: else
  fi;
  if
  :: atomic { got != EMPTY || marked -> got = EMPTY; marked = false; goto poll }
  :: else
  fi;
  if
  :: async_calls > 0 -> goto poll /* spins */
  :: true
  fi;

park:
  acquire_for_poller(flag);
  if
  :: !flag -> goto wait
  :: atomic { else -> flag = false }
  fi;
  if
  :: async_calls == 0 ->
     report_input(false);
     poller_present = false;
     release(marked);
     if
     :: waiter_count > 0 -> elect_waiter(flag); flag = false
     :: else
     fi;
     if
     :: !marked && async_calls == 0 -> goto wait
     :: else
     fi;
     marked = false;
     atomic { flag = poller_present; poller_present = true }
     if
     :: atomic { flag -> flag = false; goto wait }
     :: else -> goto poll
     fi
  :: else
  fi;
  report_input(true);
  if
  :: !link_ended -> prepare_to_park(flag)
  :: else
  fi;
  release(marked);
  if
  :: waiter_count > 0 ->
     poller_present = false;
     elect_waiter(spins);
     if
     :: atomic { spins -> spins = false; flag = false; marked = false; goto wait }
#ifdef MUTANT_POLLER_SAYS_LATE_THAT_IT_STAYS
     :: else -> poller_present = true
#else
     :: atomic { else -> flag = false; marked = false; goto poll }
#endif
     fi
  :: else
  fi;
  if
  :: atomic { flag && !marked -> flag = false; goto wait }
  :: atomic { else -> flag = false; marked = false; goto poll }
  fi
}

/* The server: answers, and rings if need be. */
active proctype server() {
  do
  :: atomic {
       if
#ifndef CANCELS
       :: asked[0] -> asked[0] = false; reply[0] = true
#endif
       :: asked[1] -> asked[1] = false; reply[1] = true
       :: asked[A] -> asked[A] = false; reply[A] = true
       fi;
       if
       :: parked && !rung && !end -> rung = true; bell = true; edge = edge || reports_input
       :: else
       fi
     }
#ifdef ENDS
  :: break
#endif
  od;
  atomic { end = true; edge = true }
}

init {
  atomic {
    byte i = 0;
    do
    :: i < POLLERS -> run poller(); i++
    :: else -> break
    od;
    run waiting_thread(0);
    if
    :: THREADS > 1 -> run waiting_thread(1)
    :: else -> at_home++
    fi
  }
  if
  :: expired[0] = true
  :: skip
  fi;
  timeout -> assert(at_home == 3)
}
