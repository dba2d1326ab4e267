// ThreadSanitizer's defaults for every test program; TSAN_OPTIONS still has the last word.
//
// report_thread_leaks: threads of the library's process-wide pools that end because they are idle are joined by the
// next one that ends, so at exit one may have ended unjoined. Tests that count threads look for leaks themselves.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "report_thread_leaks=0"; }
