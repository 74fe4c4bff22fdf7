// The echo service in C++: `serve PATH`, `client PATH FIXTURES` and `fixtures FIXTURES`.
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <thread>

#include "generated/echo.hpp"

namespace {

using tine::Bytes;
using namespace std::chrono_literals;

void expect(bool condition, const std::string& message) {
  if (!condition) {
    throw std::runtime_error(message);
  }
}

std::string hex(const Bytes& bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += digits[byte >> 4];
    text += digits[byte & 0xf];
  }
  return text;
}

Bytes unhex(const std::string& text) {
  Bytes bytes;
  for (std::size_t index = 0; index + 1 < text.size(); index += 2) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoul(text.substr(index, 2), nullptr, 16)));
  }
  return bytes;
}

template <typename T>
T decode_request(const std::string& name, const Bytes& bytes) {
  tine::Reader reader(bytes);
  const auto found = tine::read_request(reader);
  if (found != name) {
    tine::Reader::unknown_message(found);
  }
  return tine::decode_message<T>(reader);
}

template <typename T>
Bytes recode_request(const std::string& name, const Bytes& bytes) {
  return tine::encode_request(name, decode_request<T>(name, bytes));
}

template <typename T>
Bytes recode_response(const std::string& name, const Bytes& bytes) {
  tine::Reader reader(bytes);
  const auto found = tine::read_response(reader);
  if (found != name) {
    tine::Reader::unknown_message(found);
  }
  return tine::encode_response(name, tine::decode_message<T>(reader));
}

Bytes recode(const std::string& name, const Bytes& bytes) {
  static const std::map<std::string, Bytes (*)(const std::string&, const Bytes&)> messages{
      {"EchoScalars", recode_request<echo::EchoScalars>},
      {"EchoScalarsResponse", recode_response<echo::EchoScalarsResponse>},
      {"EchoOptionals", recode_request<echo::EchoOptionals>},
      {"EchoOptionalsResponse", recode_response<echo::EchoOptionalsResponse>},
      {"EchoLists", recode_request<echo::EchoLists>},
      {"EchoListsResponse", recode_response<echo::EchoListsResponse>},
      {"EchoBytes", recode_request<echo::EchoBytes>},
      {"EchoBytesResponse", recode_response<echo::EchoBytesResponse>},
      {"EchoSame", recode_request<echo::EchoSame>},
      {"EchoSameResponse", recode_response<echo::EchoSameResponse>},
      {"EchoNothing", recode_request<echo::EchoNothing>},
      {"EchoNothingResponse", recode_response<echo::EchoNothingResponse>},
      {"EchoFail", recode_request<echo::EchoFail>},
      {"EchoFailResponse", recode_response<echo::EchoFailResponse>},
      {"EchoCount", recode_request<echo::EchoCount>},
      {"EchoCountResponse", recode_response<echo::EchoCountResponse>},
      {"EchoErrorResponse", recode_response<echo::EchoErrorResponse>},
  };
  return messages.at(name)(name, bytes);
}

struct Fixture {
  std::string kind;
  std::string name;
  std::string bytes;
  std::string expected;
};

std::vector<Fixture> read_fixtures(const std::string& file) {
  std::ifstream input(file);
  std::vector<Fixture> fixtures;
  for (std::string line; std::getline(input, line);) {
    if (line.empty() || line[0] == '#') {
      continue;
    }
    // A message may be empty, so blanks count.
    std::vector<std::string> words(4);
    std::istringstream parts(line);
    for (std::string& word : words) {
      std::getline(parts, word, ' ');
    }
    fixtures.push_back({words[0], words[1], words[2], words[3]});
  }
  return fixtures;
}

void check_fixtures(const std::string& file) {
  const auto fixtures = read_fixtures(file);
  for (const Fixture& fixture : fixtures) {
    std::string found;
    try {
      found = hex(recode(fixture.name, unhex(fixture.bytes)));
    } catch (const tine::DecodeError& error) {
      found = error.code();
    }
    const std::string& wanted = fixture.kind == "exact" ? fixture.bytes : fixture.expected;
    expect(found == wanted, fixture.kind + " " + fixture.name + " " + fixture.bytes + ": found " + found);
  }
  std::cout << "fixtures " << fixtures.size() << std::endl;
}

class Echo : public echo::EchoHandler {
 public:
  void scalars(echo::EchoScalars request, tine::Responder<echo::EchoScalarsResponse> responder) override {
    responder.ok({request.flag, request.small, request.medium, request.large, request.huge, request.ratio,
                  request.text, request.data, request.digest});
  }

  void optionals(echo::EchoOptionals request, tine::Responder<echo::EchoOptionalsResponse> responder) override {
    responder.ok({request.flag, request.count, request.text, request.data, request.hash, request.shape,
                  request.numbers});
  }

  void lists(echo::EchoLists request, tine::Responder<echo::EchoListsResponse> responder) override {
    responder.ok({request.tree_id, request.hashes, request.pair, request.octets, request.rows, request.blobs,
                  request.shapes});
  }

  void bytes(echo::EchoBytes request, tine::Responder<echo::EchoBytesResponse> responder) override {
    responder.ok({std::move(request.data)});
  }

  // On another thread, so that replies overtake one another.
  void same(echo::EchoSame request, tine::Responder<echo::EchoSameResponse> responder) override {
    std::thread([request = std::move(request), responder = std::move(responder)]() mutable {
      responder.ok({std::move(request.data)});
    }).detach();
  }

  void nothing(echo::EchoNothing, tine::Responder<echo::EchoNothingResponse> responder) override {
    responder.ok({});
  }

  void fail(echo::EchoFail request, tine::Responder<echo::EchoFailResponse> responder) override {
    responder.error(std::move(request.message));
  }

  void count(echo::EchoCount request, tine::StreamResponder<echo::EchoCountResponse> responder) override {
    std::thread([request, responder = std::move(responder)]() mutable {
      for (std::uint64_t sent = 0; !request.times || sent < *request.times;) {
        switch (responder.send({request.from + sent}, 100ms)) {
          case tine::Sent::kYes:
            sent++;
            break;
          case tine::Sent::kNoRoom:
            break;
          case tine::Sent::kNotWanted:
            return;
        }
      }
      responder.finish();
    }).detach();
  }
};

void serve(const std::string& path) {
  Echo echo;
  echo::EchoServer server(path, echo);
  std::thread running([&] { server.run(); });
  std::cout << "ready" << std::endl;
  while (std::cin.get() != std::istream::traits_type::eof()) {
  }
  server.shutdown();
  running.join();
}

/// Whether the fields of the response are those of the request: what differs is the names.
template <typename R>
void check_echo(const Fixture& fixture, const R& response) {
  tine::Writer writer;
  write(writer, response);
  const std::string fields = hex(writer.take());
  expect(fixture.bytes.ends_with(fields), fixture.name + " " + fixture.bytes + ": another value came back");
}

void large_and_many(const echo::EchoClient& client) {
  const Bytes large(3 << 20, 7);
  expect(client.bytes({large}).data == large, "large bytes came back different");
  std::vector<tine::Pending<echo::EchoSameResponse>> pending;
  for (int index = 0; index < 200; index++) {
    pending.push_back(client.submit_same({{static_cast<std::uint8_t>(index)}}));
  }
  for (int index = 199; index >= 0; index--) {
    const Bytes data = pending[static_cast<std::size_t>(index)].wait().data;
    expect(data == Bytes{static_cast<std::uint8_t>(index)}, "replies of many calls were mixed up");
  }
}

void refused(const echo::EchoClient& client) {
  try {
    client.fail({"no, because ü"});
  } catch (const tine::ServiceError& error) {
    expect(error.what() == std::string("no, because ü"), error.what());
    return;
  }
  throw std::runtime_error("`fail` did not fail");
}

void streams(const echo::EchoClient& client) {
  auto stream = client.count({5, 1000}, 16);
  for (std::uint64_t value = 5; value < 1005; value++) {
    const auto item = stream.next();
    expect(item && item->value == value, "another item came");
  }
  expect(!stream.next(), "the stream did not end");
  {
    auto endless = client.count({0, std::nullopt}, 4);
    for (std::uint64_t value = 0; value < 10; value++) {
      expect(endless.next()->value == value, "another item came");
    }
  }
  client.nothing({});
}

void run_client(const std::string& path, const std::string& file) {
  const echo::EchoClient client(path);
  int count = 0;
  for (const Fixture& fixture : read_fixtures(file)) {
    if (fixture.kind != "exact") {
      continue;
    }
    const Bytes bytes = unhex(fixture.bytes);
    const std::string& name = fixture.name;
    count++;
    if (name == "EchoScalars") {
      check_echo(fixture, client.scalars(decode_request<echo::EchoScalars>(name, bytes)));
    } else if (name == "EchoOptionals") {
      check_echo(fixture, client.optionals(decode_request<echo::EchoOptionals>(name, bytes)));
    } else if (name == "EchoLists") {
      check_echo(fixture, client.lists(decode_request<echo::EchoLists>(name, bytes)));
    } else if (name == "EchoBytes") {
      check_echo(fixture, client.bytes(decode_request<echo::EchoBytes>(name, bytes)));
    } else if (name == "EchoSame") {
      check_echo(fixture, client.submit_same(decode_request<echo::EchoSame>(name, bytes)).wait());
    } else if (name == "EchoNothing") {
      check_echo(fixture, client.nothing(decode_request<echo::EchoNothing>(name, bytes)));
    } else {
      count--;
    }
  }
  large_and_many(client);
  refused(client);
  streams(client);
  std::cout << "client " << count << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 2 && arguments[0] == "serve") {
      serve(arguments[1]);
    } else if (arguments.size() == 3 && arguments[0] == "client") {
      run_client(arguments[1], arguments[2]);
    } else if (arguments.size() == 2 && arguments[0] == "fixtures") {
      check_fixtures(arguments[1]);
    } else {
      throw std::runtime_error("serve PATH, client PATH FIXTURES or fixtures FIXTURES");
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
