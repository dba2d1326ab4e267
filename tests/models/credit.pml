/* The flow control of streams: two streams in one direction of a connection, one of which is read, and one maybe not.
 *
 * Stands for
 *   transports/framed/flow_control.h, .cc   SendAccount and ReceiveAccount
 *   client_session_stream.cc,               Send, HandleCredit, HandleMessage, DeliverMessage, RunEvents; ReturnUnread,
 *   server_session_stream.cc                as far as they count
 *   proto/PROTOCOL.md, section 8
 *
 * Leaves out: pieces (a message counts as a whole from its first piece on); the order in which two threads count and send;
 * waiting for room in the link, in which one message and one credit find place; the order of messages that wait to be
 * read. What is done with the session's lock is one step. Bytes are units; the windows are small, but a quarter and an
 * eighth of them are whole numbers, a small message is less than the eighth, and a large one goes beyond any window. (Stream 2 has large ones only.)
 *
 * Stream 1 is always read. Stream 2 is read or not, as its reader likes, and its call may end at any time with messages
 * unread and on their way, after which another begins in its place.
 *
 * Checked: there is no state from which nothing happens any more: whatever becomes of stream 2, stream 1 goes on. What is under way is somewhere: so no window shrinks. An honest side never seems to break the
 * protocol. What is under way stays within bounds.
 */

#define STREAM 16     /* the window of a stream */
#define CONNECTION 16 /* that of the connection, as small as it may be */
#define SMALL 1
#define BIG 17

#ifdef MUTANT_HOLDS_BACK_HALF
#define LUMP (STREAM / 2)
#else
#define LUMP (STREAM / 8)
#endif

/* Of the connection, and of streams 1 and 2. A call that is over is stream 0. */
byte under_way, under_way_of[3]; /* the sender's account */
byte read, read_of[3];           /* the receiver's: read, and not yet returned */
byte unreturned[3];              /* came, and was not returned */
byte small_in[3], big_in[3];     /* messages that came and were not read */

#define RESET 0                                 /* in place of a cost */
chan messages = [1] of { byte, byte };            /* stream, cost */
chan credits = [1] of { byte, byte, byte, bool }; /* stream, bytes for it and for the connection, whether second */

byte on_link, in_credits; /* the sums of what is there */
bool second, second_known; /* stream 2 is in its second call: for the sender, for the receiver */
bool stops;                /* stream 2 is read no more */
bool dropping;             /* what is in the inbox of stream 2 is of the first call */

#ifdef MUTANT_NO_QUARTER
#define SPARES(s) false
#else
#define SPARES(s) (under_way_of[s] <= STREAM / 4)
#endif
#ifdef MUTANT_MUST_FIT
#define MAY_SEND(s, cost) (under_way_of[s] + cost <= STREAM && (under_way + cost <= CONNECTION || SPARES(s)))
#else
#define MAY_SEND(s, cost) (under_way_of[s] < STREAM && (under_way < CONNECTION || SPARES(s)))
#endif

#define IN_INBOXES (small_in[1] * SMALL + big_in[1] * BIG + small_in[2] * SMALL + big_in[2] * BIG)

inline check_accounts() {
  /* Nothing is lost. */
  assert(under_way == on_link + IN_INBOXES + read + in_credits);
  /* By the quarter a stream goes beyond the connection's window with a quarter and a message at most. */
  assert(under_way_of[1] < STREAM + BIG && under_way_of[2] < STREAM + BIG);
  assert(under_way < CONNECTION + BIG + 2 * (STREAM / 4 + BIG))
}

/* ReceiveAccount::OnRead, and the credit on its way. Within atomic, with place for the credit. s: 0 if nobody gets it. */
inline on_read(s, cost) {
  read = read + cost;
  connection_part = (read >= CONNECTION / 8 -> read : 0);
  read = read - connection_part;
  if
  :: s != 0 ->
     read_of[s] = read_of[s] + cost;
     stream_part = (read_of[s] >= LUMP -> read_of[s] : 0);
     read_of[s] = read_of[s] - stream_part;
     unreturned[s] = unreturned[s] - stream_part
  :: else
  fi;
  in_credits = in_credits + connection_part;
  if
  :: stream_part + connection_part > 0 -> credits!s, stream_part, connection_part, second_known
  :: else
  fi;
  stream_part = 0;
  connection_part = 0;
  check_accounts()
}

/* Session::Send; the message is on the link with the step that counts it. */
proctype sender(byte s) {
  byte cost;
  do
  :: s == 1 -> cost = SMALL; goto send
  :: cost = BIG; goto send
  :: atomic { s == 2 && !second && nfull(messages) -> /* the call ends */
       under_way_of[2] = 0;
       messages!2, RESET;
       second = true
     }
     goto next;
send:
     atomic {
       MAY_SEND(s, cost) && nfull(messages) ->
       under_way = under_way + cost;
       under_way_of[s] = under_way_of[s] + cost;
       on_link = on_link + cost;
       messages!s, cost;
       check_accounts()
     }
     cost = 0;
next:
     skip
  od
}

/* HandleCredit. */
active proctype sender_receives() {
  byte s, stream_part, connection_part;
  bool of_second;
  do
  :: atomic {
       credits?s, stream_part, connection_part, of_second ->
       s = (s == 2 && of_second != second -> 0 : s);
       assert(connection_part <= under_way && (s == 0 || stream_part <= under_way_of[s]));
       in_credits = in_credits - connection_part;
       under_way = under_way - connection_part;
       if
       :: s != 0 -> under_way_of[s] = under_way_of[s] - stream_part
       :: else
       fi;
       check_accounts();
       s = 0; stream_part = 0; connection_part = 0; of_second = false
     }
  od
}

#ifdef MUTANT_FORGETS_UNREAD
#define GIVE_BACK(cost) skip
#else
#define GIVE_BACK(cost) on_read(0, cost)
#endif

/* HandleMessage, HandleReset and what a call leaves unread. */
active proctype receiver() {
  byte s, cost, stream_part, connection_part;
  do
  :: atomic {
       messages?s, cost ->
       if
       :: cost == RESET -> second_known = true; dropping = true; unreturned[2] = 0; read_of[2] = 0
       :: cost != RESET ->
          assert(unreturned[s] < STREAM); /* OnReceived */
          unreturned[s] = unreturned[s] + cost;
          on_link = on_link - cost;
          if
          :: cost == SMALL -> small_in[s]++
          :: else -> big_in[s]++
          fi;
          check_accounts()
       fi
     }
     if
     :: cost == RESET ->
        do /* one credit for each, as there is little place; in the code it is one for all */
        :: atomic { small_in[2] > 0 && nfull(credits) -> small_in[2]--; GIVE_BACK(SMALL) }
        :: atomic { big_in[2] > 0 && nfull(credits) -> big_in[2]--; GIVE_BACK(BIG) }
        :: atomic { small_in[2] + big_in[2] == 0 -> dropping = false; break }
        od
     :: else
     fi;
     atomic { s = 0; cost = 0 }
  od
}

/* An application that reads. */
proctype reader(byte s) {
  byte stream_part, connection_part;
  do
  :: atomic { small_in[s] > 0 && nfull(credits) && !(s == 2 && (stops || dropping)) -> small_in[s]--; on_read(s, SMALL) }
  :: atomic { big_in[s] > 0 && nfull(credits) && !(s == 2 && (stops || dropping)) -> big_in[s]--; on_read(s, BIG) }
  od
}

init {
  atomic { run sender(1); run sender(2); run reader(1); run reader(2) }
  if
  :: stops = true
  :: skip
  fi;
  timeout -> assert(false)
}
