// ThreadSanitizer's defaults for every test program; TSAN_OPTIONS still has the last word.
//
// report_thread_leaks: threads of the library's process-wide pools that end because they are idle are joined by the
// next one that ends, so at exit one may have ended unjoined. Tests that count threads look for leaks themselves.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "report_thread_leaks=0"; }

// Debian's Abseil is not built with ThreadSanitizer, which therefore does not see the locks and atomics in it, but does
// see the memory functions and allocations behind them: the reference counts of Status, and the pool of random numbers
// behind BitGen. When the last but one reference to a Status goes inside of Abseil, it takes the last one's deletion,
// in code that is inlined here, for a race.
//
// The last one is a race that a test is about: a peer that changes what it has published.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:libabsl_status.so\n"
         "called_from_lib:libabsl_random_internal_pool_urbg.so\n"
         "race:^absl::*::Status::Unref\n"
         "race:^shmrpc::fault::NativeProducer::Publish\n";
}
