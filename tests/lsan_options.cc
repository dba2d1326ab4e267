// LeakSanitizer's defaults for test programs that link the gRPC library; LSAN_OPTIONS still has the last word.
//
// Debian's c-ares 1.18, by which the gRPC library resolves names, leaks a copy of the name each time it answers for
// "localhost" itself: a program of eight lines that waits for a gRPC channel to dns:///localhost shows it.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libcares.so\n"; }
