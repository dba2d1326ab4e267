/* How two processes that share a ring in each direction sleep, wake each other up, wait for room, and end.
 *
 * Stands for
 *   transports/shm/ring.cc          Reserve and Commit (as counts), HasRoom, AskForRoom, TakeParked, PeerBehind, Peek
 *                                   and Take, TakeRoomRequest, PrepareToPark, Unpark
 *   transports/shm/shm_link.cc      Flush, RingIfPeerBehind, RingDoorbell, Receive, PrepareToPark, DrainWakeups,
 *                                   FinishSending, Shutdown
 *   transports/framed/sender.cc     Reserve, Commit, FlushSpilled, Flush, Continue, PrepareToSleep, Finish
 *   transports/framed/session.cc    OnEvents, BeginReceiving, ContinueSending
 *   client_session_wait.cc          PollUntil, Sleep and WaitForRoom of one thread that has the right to poll
 *   server_session.cc               Poll, Park, HoldsBack, WaitForRoom of one thread; poller.cc Attend
 *
 * Leaves out: what is in records and where; who of several threads looks (poll_right.pml); deadlines;
 * peers that break the protocol; the short looks for room before it is asked for, which are the peer's steps in between.
 * A record is one unit; the ring's proportions are kept: who finds no room has more outstanding than the quarter after
 * which `consumed` is stored seq_cst. A doorbell is there as soon as it was found due: when it comes later it wakes the
 * peer once more.
 *
 * Memory. What is seq_cst in the code takes effect at once. The other stores that matter, of `consumed` in Take and of
 * `parked` in Unpark, take effect when the process `memory` gets round to it, in any order; a relaxed load of
 * `wants_room` may miss a change. So this is weaker than x86, on purpose.
 *
 * Numbers that only grow are kept as what they are compared for: of positions the differences, of `parked` and
 * `wants_room` whether the present value has been seen.
 *
 * Checked: in a state from which nothing happens any more, both sides have come to the end of the connection, or were
 * killed. The client sends and waits for ever otherwise, so a wake-up that is lost leaves such a state behind.
 *
 * Everything at once has more states than is worth waiting for, so each of these looks at one thing closely:
 *   SLEEP    calls one by one or two at once, with late stores of `parked`
 *   ROOM     so many calls at once that both rings are full and the server holds back; always fenced, to keep it small
 *   QUARTER  requests without replies, and `consumed` is stored seq_cst only each second time
 *   ENDS     few calls; the server may end the connection in order, the client hang up, and either may be killed
 */

#define C 0 /* the client */
#define S 1 /* the server */
#define OTHER(x) (1 - (x))

#if defined(SLEEP)
#define CALLS 2 /* requests sent at once */
#define LATE_UNPARK
#elif defined(ROOM)
#define CALLS 6
#elif defined(QUARTER)
#define CALLS 1
#define ONE_WAY
#define LATE_UNPARK
#elif defined(ENDS)
#define CALLS 2
#endif
/* MOST: records that find place. WITH_ROOM, HasRoom: with so many outstanding any record finds room. FENCED: records
 * between two seq_cst stores of `consumed`. HELD: replies that the server holds back and still receives. */
#ifdef ROOM
#define MOST 2
#define WITH_ROOM 1
#define FENCED 1
#else
#define MOST 4
#define WITH_ROOM 2
#define FENCED 2
#endif
#define HELD 0

/* The ring that x writes. */
byte ready[2];  /* records published, and not yet taken by the peer */
byte taken[2];  /* taken, and x does not see that yet: the peer's store of `consumed` is on its way */
byte unseen[2]; /* only in a mutant: of `ready`, what the peer does not see yet */

/* What x says as the consumer of the other ring, and as the producer of its own. */
byte unfenced[2];   /* records taken since `consumed` was stored seq_cst */
bool parked[2];     /* odd, as the peer sees it */
bool unparking[2];  /* Unpark's store is on its way */
bool parking[2];    /* only in a mutant: the same of PrepareToPark's */
bool rung[2];       /* the peer has rung for this value of parked[x] */
bool wants_room[2]; /* x's number has changed since the peer looked */

bool rung_all; /* the client has rung since it published */

/* The socket: whether x's end is readable, and at its end. */
bool bell[2], end[2];
bool edge; /* epoll has to report something of the server's */
bool hung_up[2];

byte outstanding; /* requests without a reply that was received */
byte spilled;     /* the server's replies in private memory */
bool closed;      /* the server has finished sending */
bool over[2];     /* has come to the end, or was killed */

/* What is going to happen: chosen at the beginning. */
mtype = { nothing, server_leaves, client_dies, server_dies };
mtype fate = nothing;

#define OUTSTANDING(x) (ready[x] + taken[x])
#define HAS_ROOM(x) (OUTSTANDING(x) <= WITH_ROOM)
#define HAS_PLACE(x) (OUTSTANDING(x) < MOST)
#define THERE_IS_ONE(x) (ready[OTHER(x)] > unseen[OTHER(x)]) /* for the consumer x */
#define HOLDS_BACK (spilled > HELD && !HAS_ROOM(S) && !hung_up[S])

/* Within atomic. */
inline ring_doorbell(x) {
  if
  :: !end[OTHER(x)] ->
     bell[OTHER(x)] = true;
     if
     :: x == C -> edge = true
     :: else
     fi
  :: else
  fi
}

inline hang_up(x) {
  atomic { end[C] = true; end[S] = true; edge = true; bell[x] = false }
}

inline publish(x) {
  atomic {
    ready[x]++;
#ifdef MUTANT_PUBLISHED_LATE
    unseen[x]++;
#endif
    if
    :: x == C -> rung_all = false
    :: else
    fi
  }
}

/* ShmLink::Flush */
inline flush(x, always) {
  atomic {
    if
    :: (parked[OTHER(x)] && !rung[OTHER(x)]) || always ->
       rung[OTHER(x)] = parked[OTHER(x)];
       if
       :: x == C -> rung_all = true
       :: else
       fi;
       ring_doorbell(x)
    :: else
    fi
  }
}

/* RingProducer::AskForRoom */
inline ask_for_room(x, asked) {
#ifdef MUTANT_LOOKS_FOR_ROOM_BEFORE_ASKING
  asked = !HAS_ROOM(x);
  wants_room[x] = true
#else
  wants_room[x] = true;
  asked = !HAS_ROOM(x)
#endif
}

/* RingConsumer::TakeRoomRequest */
inline take_room_request(x, relaxed) {
  atomic {
    if
    :: wants_room[OTHER(x)] -> wants_room[OTHER(x)] = false; ring_doorbell(x)
    :: !wants_room[OTHER(x)] || relaxed
    fi
  }
}

#define EMPTY 0
#define FRAME 1
#define END 2

/* ShmLink::Receive */
inline receive(x, result) {
  if
  :: atomic { THERE_IS_ONE(x) -> ready[OTHER(x)]--; taken[OTHER(x)]++; unfenced[x]++; result = FRAME }
     if
#ifndef MUTANT_NEVER_FENCED
     :: atomic { unfenced[x] >= FENCED -> taken[OTHER(x)] = 0; unfenced[x] = 0 }
        take_room_request(x, false)
#endif
     :: atomic { else -> unfenced[x] = (unfenced[x] > FENCED -> FENCED : unfenced[x]) }
        take_room_request(x, true)
     fi
  :: !THERE_IS_ONE(x) -> result = (hung_up[x] -> END : EMPTY)
  fi
}

inline announce(x) {
  atomic {
    if
    :: !parked[x] || unparking[x] ->
       rung[x] = false;
#ifdef MUTANT_PARKED_LATE
       parking[x] = true
#else
       parked[x] = true
#endif
    :: else
    fi;
    unparking[x] = false
  }
}

inline unpark(x) {
  atomic {
    parking[x] = false;
#ifdef LATE_UNPARK
    unparking[x] = parked[x]
#else
    parked[x] = false;
    rung[x] = false
#endif
  }
}

/* ShmLink::PrepareToPark */
inline prepare_to_park(x, result) {
  if
  :: hung_up[x]
  :: else ->
#ifdef MUTANT_LOOKS_BEFORE_ANNOUNCING
     result = !THERE_IS_ONE(x);
     announce(x);
#else
     announce(x);
#endif
#ifndef MUTANT_NEVER_FENCED
     atomic { taken[OTHER(x)] = 0; unfenced[x] = 0 }
     take_room_request(x, false);
#endif
#ifndef MUTANT_LOOKS_BEFORE_ANNOUNCING
     result = !THERE_IS_ONE(x);
#endif
     if
     :: !result -> unpark(x)
#ifdef MUTANT_DRAINS_BEFORE_SLEEPING
     :: atomic { else -> bell[x] = false }
#else
     :: else
#endif
     fi
  fi
}

/* Session::BeginReceiving up to ContinueSending, with ShmLink::DrainWakeups. */
inline begin_receiving(x, woken, by_end) {
  atomic {
    unpark(x);
    if
    :: woken ->
       woken = false;
#ifndef MUTANT_HANG_UP_HIDDEN
       hung_up[x] = hung_up[x] || by_end;
#endif
       by_end = false;
       /* recv: doorbells, and the end only when there is none */
       if
       :: bell[x] -> bell[x] = false
       :: else -> hung_up[x] = hung_up[x] || end[x]
       fi
    :: else
    fi
  }
}

active proctype client() {
  bool result, woken, by_end, for_room;
  byte got, left;

#define DONE (for_room -> HAS_ROOM(C) : outstanding == 0)

idle: /* one call, or many at once */
  if
  :: left = 1
  :: left = CALLS
#ifdef ENDS
  :: goto leave
#endif
  fi;

send: /* Sender::Reserve and Commit */
  if
#ifdef ONE_WAY
  :: left == 0 -> goto idle
#else
  :: left == 0 -> goto poll_until
#endif
  :: left > 0 && HAS_PLACE(C) ->
#ifdef ONE_WAY
     left--;
#else
     atomic { left--; outstanding++ }
#endif
     publish(C);
     if
     :: fate == client_dies -> goto killed
     :: true
     fi;
     flush(C, false);
     goto send
  :: else
  fi;
  ask_for_room(C, result);
  if
  :: atomic { !result -> goto send }
  :: atomic { else -> result = false; for_room = true }
  fi;
  flush(C, false);

poll_until:
  begin_receiving(C, woken, by_end);
look:
#ifdef MUTANT_ONLY_WAITS_FOR_ROOM
  if
  :: for_room -> goto sleep
  :: else
  fi;
#endif
  receive(C, got);
  if
  :: atomic { got == FRAME -> assert(outstanding > 0); outstanding-- }
  :: else
  fi;
  if
  :: DONE -> goto waited
  :: else
  fi;
  if
  :: atomic { got == END -> goto ended }
  :: atomic { got == FRAME -> got = EMPTY; goto look }
  :: got == EMPTY -> goto look /* spins */
  :: got == EMPTY
  fi;
park:
  prepare_to_park(C, result);
  if
  :: atomic { !result -> goto awake }
  :: atomic { else -> result = false }
  fi;
sleep:
  atomic { /* RingIfPeerBehind */
    if
    :: !rung_all && OUTSTANDING(C) > 0 -> rung_all = true; ring_doorbell(C)
    :: else
    fi
  }
  if
  :: for_room ->
     ask_for_room(C, result);
     if
     :: atomic { !result -> goto awake }
     :: atomic { else -> result = false }
     fi
  :: else
  fi;
  if
  :: atomic { bell[C] || end[C] -> woken = true; by_end = end[C] } /* ppoll */
  :: fate == client_dies -> goto killed
  fi;
awake:
  begin_receiving(C, woken, by_end);
  if
  :: DONE -> goto waited
  :: else -> goto look
  fi;
waited:
  atomic {
    got = EMPTY;
    if
    :: for_room -> for_room = false; goto send
    :: else -> goto idle
    fi
  }

ended:
  assert(ready[S] == 0); /* what was sent before the end was received */
leave:
killed:
  hang_up(C);
  over[C] = true
}

/* Sender::Flush with FlushSpilled */
inline flush_all(result, all_sent) {
  do
  :: atomic { spilled == 0 -> all_sent = true; break }
  :: else ->
     do
     :: atomic { spilled > 0 && HAS_PLACE(S) -> spilled-- }
        publish(S)
     :: else -> break
     od;
     flush(S, true);
#ifdef MUTANT_DOES_NOT_ASK_FOR_ROOM
     if
     :: spilled > 0 -> break
     :: else
     fi
#else
     if
     :: spilled > 0 ->
        ask_for_room(S, result);
        if
        :: atomic { result || !HAS_ROOM(S) -> result = false; break }
        :: else
        fi
     :: else
     fi
#endif
  od;
  flush(S, false)
}

active proctype server() {
  bool result, all_sent, woken, by_end;
  byte got;

wait: /* epoll_wait: an edge is reported if there still is something to report */
  if
  :: atomic {
       edge -> edge = false;
       if
       :: bell[S] || end[S] -> woken = true; by_end = end[S]
       :: else -> goto wait
       fi
     }
  :: fate == server_dies -> goto killed
  fi;

poll:
  if
  :: fate == server_leaves && !closed -> /* Sender::Finish */
     flush_all(result, all_sent);
     if
     :: atomic { all_sent -> closed = true; end[C] = true }
     :: else
     fi;
     all_sent = false
  :: true
  fi;
  begin_receiving(S, woken, by_end);
  if
  :: spilled > 0 -> flush_all(result, all_sent); all_sent = false
  :: else
  fi;
  if
  :: HOLDS_BACK -> goto park
  :: else
  fi;
  receive(S, got);
  if
  :: atomic { got == END -> goto killed }
  :: got == EMPTY -> goto poll /* spins */
  :: got == EMPTY -> goto park
  :: atomic { got == FRAME -> got = EMPTY }
     prepare_to_park(S, result); /* before a handler */
     result = false
  :: atomic { got == FRAME -> got = EMPTY } /* not if it is the scanner that runs the handler */
  fi;

reply:
#ifdef ONE_WAY
  goto poll;
#endif
  if
  :: fate == server_dies -> goto killed
  :: closed -> goto poll
  :: !closed && spilled > 0 -> goto spill
  :: !closed && spilled == 0 && HAS_PLACE(S) -> publish(S); flush(S, false); goto poll
  :: !closed && spilled == 0 && !HAS_PLACE(S)
  fi;
  ask_for_room(S, result);
  if
  :: atomic { !result -> goto reply }
  :: atomic { else -> result = false }
  fi;
  flush(S, false);
  if
  :: HAS_ROOM(S) -> goto reply
  :: true /* out of patience */
  fi;
spill:
  spilled++;
  flush_all(result, all_sent);
  atomic { all_sent = false; goto poll }

park:
  if
  :: HOLDS_BACK -> goto wait
  :: else -> prepare_to_park(S, result)
  fi;
  if
  :: atomic { result -> result = false; goto wait }
  :: else -> goto poll
  fi;
killed:
  hang_up(S);
  over[S] = true
}

/* Stores that are on their way. */
active proctype memory() {
  do
  :: atomic { taken[C] > 0 -> taken[C] = 0 }
  :: atomic { taken[S] > 0 -> taken[S] = 0 }
  :: atomic { unparking[C] -> unparking[C] = false; parked[C] = false; rung[C] = false }
  :: atomic { unparking[S] -> unparking[S] = false; parked[S] = false; rung[S] = false }
#ifdef MUTANT_PARKED_LATE
  :: atomic { parking[C] -> parking[C] = false; parked[C] = true }
  :: atomic { parking[S] -> parking[S] = false; parked[S] = true }
#endif
#ifdef MUTANT_PUBLISHED_LATE
  :: atomic { unseen[C] > 0 -> unseen[C] = 0 }
  :: atomic { unseen[S] > 0 -> unseen[S] = 0 }
#endif
  od
}

init {
#ifdef ENDS
  if
  :: fate = server_leaves
  :: fate = client_dies
  :: fate = server_dies
  :: skip
  fi;
#endif
  timeout -> assert(over[C] && over[S])
}
