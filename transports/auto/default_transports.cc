#include <memory>

#include "shmrpc/transport.h"
#include "transports/auto/auto_transport.h"
#include "transports/inproc/inproc_transport.h"

namespace shmrpc {

const TransportSet& DefaultTransports() {
  static const TransportSet* const transports = new TransportSet{
      std::make_shared<InprocTransport>(),
      std::make_shared<autoselect::AutoTransport>(),
  };
  return *transports;
}

}  // namespace shmrpc
