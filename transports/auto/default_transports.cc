#include <memory>

#include "runtime/src/fork.h"
#include "shmrpc/transport.h"
#include "transports/auto/auto_transport.h"
#include "transports/inproc/inproc_transport.h"

namespace shmrpc {

const TransportSet& DefaultTransports() {
  static constinit internal::PerProcess<const TransportSet> transports;
  return transports.GetOrMake([] {
    return TransportSet{std::make_shared<InprocTransport>(), std::make_shared<autoselect::AutoTransport>()};
  });
}

}  // namespace shmrpc
