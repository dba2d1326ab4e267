#ifndef SHMRPC_TESTS_GRPC_CERTIFICATES_H_
#define SHMRPC_TESTS_GRPC_CERTIFICATES_H_

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace shmrpc {

// Certificates made for one test with the openssl command, in a directory that goes with this object.
class Certificates {
 public:
  struct Identity {
    std::string key;          // PEM
    std::string certificate;  // PEM
  };

  Certificates() {
    if (mkdtemp(directory_.data()) == nullptr) ADD_FAILURE() << directory_ << ": " << strerror(errno);
  }
  ~Certificates() {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  // An authority, by whose name the others are made.
  Identity MakeAuthority(const std::string& name) {
    Run(absl::StrCat("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=", name,
                     " -keyout ", Path(name, "key"), " -out ", Path(name, "crt")));
    return Load(name);
  }

  // For the host "localhost", certified by `authority`. `expired`: its time was over long ago. `extension`: a line for
  // openssl's configuration.
  Identity Make(const std::string& name, const std::string& authority, bool expired = false,
                const std::string& extension = "") {
    std::ofstream(Path(name, "ext")) << "subjectAltName=DNS:localhost\n" << extension << "\n";
    std::ofstream(Path(name, "index"));
    std::ofstream(Path(name, "cnf")) << "[ca]\ndefault_ca=here\n[here]\ndatabase=" << Path(name, "index")
                                     << "\nnew_certs_dir=" << directory_ << "\nserial=" << Path(name, "serial")
                                     << "\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n";
    Run(absl::StrCat("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=", name, " -keyout ",
                     Path(name, "key"), " -out ", Path(name, "csr")));
    Run(absl::StrCat("openssl ca -batch -notext -create_serial -rand_serial -config ", Path(name, "cnf"), " -cert ",
                     Path(authority, "crt"), " -keyfile ", Path(authority, "key"), " -extfile ", Path(name, "ext"),
                     expired ? " -startdate 20200101000000Z -enddate 20200102000000Z" : " -days 2", " -in ",
                     Path(name, "csr"), " -out ", Path(name, "crt")));
    return Load(name);
  }

 private:
  std::string Path(const std::string& name, const std::string& extension) const {
    return absl::StrCat(directory_, "/", name, ".", extension);
  }
  void Run(const std::string& command) {
    const std::string log = absl::StrCat(directory_, "/log");
    if (system(absl::StrCat(command, " >", log, " 2>&1 </dev/null").c_str()) != 0) {
      ADD_FAILURE() << command << "\n" << Read(log);
    }
  }
  static std::string Read(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }
  Identity Load(const std::string& name) const { return {Read(Path(name, "key")), Read(Path(name, "crt"))}; }

  std::string directory_ = std::filesystem::temp_directory_path().string() + "/shmrpc-certificates-XXXXXX";
};

}  // namespace shmrpc

#endif  // SHMRPC_TESTS_GRPC_CERTIFICATES_H_
