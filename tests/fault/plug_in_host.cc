// A program that knows nothing of the library: it loads a plug-in (its first argument) that has the library inside, lets
// it connect to an address (its second), and unloads it.

#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  void* const plug_in = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (plug_in == nullptr) {
    puts(dlerror());
    return 1;
  }
  const auto connect = reinterpret_cast<int (*)(const char*)>(dlsym(plug_in, "Connect"));
  const bool connected = connect != nullptr && connect(argv[2]) == 0;
  dlclose(plug_in);
  // Its threads have to find their code.
  const bool stays = dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD) != nullptr;
  puts(!connected ? "not connected" : stays ? "stays" : "gone");
  fflush(stdout);
  // Until the test closes this program's input.
  char byte;
  while (read(0, &byte, 1) > 0) {
  }
  return 0;
}
