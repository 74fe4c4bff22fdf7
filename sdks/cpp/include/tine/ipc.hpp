/// Typed calls between local processes: what generated C++ rests on. Header-only, over `tine_ipc.h`.
///
/// Handles free themselves. Failures are exceptions with a stable code. Nothing waits for longer than
/// its limit.
#pragma once

#include <tine_ipc.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "tine/msgpack.hpp"

namespace tine {

using Milliseconds = std::chrono::milliseconds;
using SchemaHash = std::array<std::uint8_t, 32>;

/// How long a call waits unless told otherwise.
inline constexpr Milliseconds kCallLimit{30'000};

/// How long connecting may take unless told otherwise.
inline constexpr Milliseconds kConnectLimit{5'000};

/// A connection or a listener that could not be made.
class ConnectError : public Error {
 public:
  using Error::Error;
};

/// A call that the transport failed, or answered in the service's place.
class CallError : public Error {
 public:
  using Error::Error;
};

/// What a service itself says went wrong.
class ServiceError : public Error {
 public:
  explicit ServiceError(const std::string& message) : Error("TN1063", message) {}
};

/// The error message of every service.
struct ErrorResponse {
  std::string message;

  bool operator==(const ErrorResponse&) const = default;
};

inline void write(Writer& writer, const ErrorResponse& value) {
  writer.map(1);
  writer.field("message", value.message);
}

inline void read(Reader& reader, ErrorResponse& value) {
  static constexpr std::array<FieldName, 1> names{{{"message", true}}};
  reader.fields(names, [&](std::size_t) { read(reader, value.message); });
}

namespace detail {

inline std::uint32_t limit_ms(Milliseconds limit) {
  const auto count = limit.count();
  if (count <= 0) {
    return 0;
  }
  return count > 0xffffffff ? 0xffffffff : static_cast<std::uint32_t>(count);
}

template <typename E>
[[noreturn]] void raise() {
  throw E(tine_error_code(), tine_error_message());
}

/// Copies bytes of the library and frees them.
inline Bytes own(tine_bytes bytes) {
  Bytes copy(bytes.data, bytes.data + bytes.length);
  tine_bytes_free(bytes);
  return copy;
}

/// Reads a response of that name, or throws the service's error.
template <typename R>
R decode_response(const Bytes& payload, std::string_view name, std::string_view error_name) {
  Reader reader(payload);
  const std::string_view found = read_response(reader);
  if (found == name) {
    return decode_message<R>(reader);
  }
  if (found == error_name) {
    throw ServiceError(decode_message<ErrorResponse>(reader).message);
  }
  Reader::unknown_message(found);
}

/// A connection, and the outcomes of submissions that nobody has asked for yet.
class Link {
 public:
  Link(const std::string& path, const SchemaHash* schema, Milliseconds limit) {
    const std::uint8_t* hash = schema == nullptr ? nullptr : schema->data();
    if (tine_client_connect(path.c_str(), hash, limit_ms(limit), &client_) != TINE_OK) {
      raise<ConnectError>();
    }
  }

  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link() { tine_client_close(client_); }

  tine_client* get() const { return client_; }

  std::uint64_t submit(const Bytes& request) {
    std::uint64_t token = 0;
    {
      const std::lock_guard lock(mutex_);
      token = next_token_++;
    }
    if (tine_client_submit(client_, token, request.data(), request.size()) != TINE_OK) {
      raise<CallError>();
    }
    return token;
  }

  /// Waits for the outcome of one submission. One thread polls at a time, for all that wait.
  Bytes wait(std::uint64_t token, Milliseconds limit) {
    const auto until = std::chrono::steady_clock::now() + limit;
    std::unique_lock lock(mutex_);
    for (;;) {
      if (const auto found = outcomes_.extract(token)) {
        if (found.mapped().code.empty()) {
          return std::move(found.mapped().reply);
        }
        throw CallError(found.mapped().code, found.mapped().message);
      }
      const auto now = std::chrono::steady_clock::now();
      if (now >= until) {
        throw CallError("TN0921", "no answer in time");
      }
      if (is_polling_) {
        changed_.wait_until(lock, until);
        continue;
      }
      is_polling_ = true;
      lock.unlock();
      auto polled = poll(std::chrono::ceil<Milliseconds>(until - now));
      lock.lock();
      is_polling_ = false;
      if (polled) {
        outcomes_.insert_or_assign(polled->first, std::move(polled->second));
      }
      changed_.notify_all();
    }
  }

  /// Gives a submission up; its outcome is dropped when it comes.
  void forget(std::uint64_t token) {
    const std::lock_guard lock(mutex_);
    outcomes_.erase(token);
  }

 private:
  struct Outcome {
    Bytes reply;
    std::string code;
    std::string message;
  };

  std::optional<std::pair<std::uint64_t, Outcome>> poll(Milliseconds limit) {
    std::uint64_t token = 0;
    tine_bytes reply{};
    switch (tine_client_poll(client_, limit_ms(limit), &token, &reply)) {
      case TINE_OK:
        return {{token, {own(reply), {}, {}}}};
      case TINE_ERROR:
        return {{token, {{}, tine_error_code(), tine_error_message()}}};
      default:
        return std::nullopt;
    }
  }

  tine_client* client_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<std::uint64_t, Outcome> outcomes_;
  std::uint64_t next_token_ = 1;
  bool is_polling_ = false;
};

}  // namespace detail

/// A call that was sent. Dropping it gives the call up.
template <typename R>
class Pending {
 public:
  Pending(std::shared_ptr<detail::Link> link, std::uint64_t token, std::string_view name,
          std::string_view error_name)
      : link_(std::move(link)), token_(token), name_(name), error_name_(error_name) {}

  Pending(Pending&&) noexcept = default;
  Pending& operator=(Pending&&) noexcept = default;

  ~Pending() {
    if (link_) {
      link_->forget(token_);
    }
  }

  /// Waits for the response.
  R wait(Milliseconds limit = kCallLimit) {
    return detail::decode_response<R>(link_->wait(token_, limit), name_, error_name_);
  }

 private:
  std::shared_ptr<detail::Link> link_;
  std::uint64_t token_;
  std::string_view name_;
  std::string_view error_name_;
};

/// The responses of one request, in order. Dropping it cancels what has not come.
template <typename R>
class ItemStream {
 public:
  ItemStream(std::shared_ptr<detail::Link> link, tine_stream* stream, std::string_view name,
             std::string_view error_name)
      : link_(std::move(link)), stream_(stream), name_(name), error_name_(error_name) {}

  /// The next response; none is the end.
  std::optional<R> next(Milliseconds limit = kCallLimit) {
    tine_bytes item{};
    const tine_status status = tine_stream_next(stream_.get(), detail::limit_ms(limit), &item);
    if (status == TINE_ERROR) {
      detail::raise<CallError>();
    }
    const Bytes payload = detail::own(item);
    // The end is empty, or the service's error.
    if (status == TINE_END && payload.empty()) {
      return std::nullopt;
    }
    return detail::decode_response<R>(payload, name_, error_name_);
  }

 private:
  struct Close {
    void operator()(tine_stream* stream) const { tine_stream_close(stream); }
  };

  std::shared_ptr<detail::Link> link_;
  std::unique_ptr<tine_stream, Close> stream_;
  std::string_view name_;
  std::string_view error_name_;
};

/// A connection to a service. Copies share it; it may be used from any thread.
class Connection {
 public:
  Connection(const std::string& path, const SchemaHash* schema, std::string_view error_name,
             Milliseconds limit)
      : link_(std::make_shared<detail::Link>(path, schema, limit)), error_name_(error_name) {}

  /// Sends a request and waits for the response.
  template <typename R, typename Q>
  R call(std::string_view request_name, const Q& request, std::string_view response_name,
         Milliseconds limit) const {
    const Bytes bytes = encode_request(request_name, request);
    tine_bytes reply{};
    const auto status =
        tine_client_call(link_->get(), bytes.data(), bytes.size(), detail::limit_ms(limit), &reply);
    if (status != TINE_OK) {
      detail::raise<CallError>();
    }
    return detail::decode_response<R>(detail::own(reply), response_name, error_name_);
  }

  /// Sends a request; the response is waited for later.
  template <typename R, typename Q>
  Pending<R> submit(std::string_view request_name, const Q& request,
                    std::string_view response_name) const {
    const std::uint64_t token = link_->submit(encode_request(request_name, request));
    return {link_, token, response_name, error_name_};
  }

  /// Sends a request that is answered with any number of responses.
  template <typename R, typename Q>
  ItemStream<R> stream(std::string_view request_name, const Q& request,
                       std::string_view response_name, std::uint32_t credit) const {
    const Bytes bytes = encode_request(request_name, request);
    tine_stream* stream = nullptr;
    if (tine_client_stream(link_->get(), bytes.data(), bytes.size(), credit,
                           detail::limit_ms(kCallLimit), &stream) != TINE_OK) {
      detail::raise<CallError>();
    }
    return {link_, stream, response_name, error_name_};
  }

 private:
  std::shared_ptr<detail::Link> link_;
  std::string_view error_name_;
};

/// Answers one request, once, now or later, from any thread. Dropped, it answers with an error.
template <typename R>
class Responder {
 public:
  Responder(tine_responder* responder, std::string_view name, std::string_view error_name)
      : responder_(responder), name_(name), error_name_(error_name) {}

  /// Answers with a response.
  void ok(const R& response) { send(encode_response(name_, response)); }

  /// Answers with the service's error.
  void error(std::string message) {
    send(encode_response(error_name_, ErrorResponse{std::move(message)}));
  }

 private:
  struct Drop {
    void operator()(tine_responder* responder) const { tine_responder_drop(responder); }
  };

  void send(const Bytes& payload) {
    tine_responder_ok(responder_.release(), payload.data(), payload.size());
  }

  std::unique_ptr<tine_responder, Drop> responder_;
  std::string_view name_;
  std::string_view error_name_;
};

/// What became of an item of a stream.
enum class Sent { kYes, kNoRoom, kNotWanted };

/// Answers one request with any number of responses. Dropped, it ends with an error.
template <typename R>
class StreamResponder {
 public:
  StreamResponder(tine_responder* responder, std::string_view name, std::string_view error_name)
      : sender_(tine_responder_stream(responder)), name_(name), error_name_(error_name) {}

  /// Sends a response, waiting for room until the limit has passed.
  Sent send(const R& response, Milliseconds limit) {
    const Bytes item = encode_response(name_, response);
    switch (tine_sender_send(sender_.get(), item.data(), item.size(), detail::limit_ms(limit))) {
      case TINE_OK:
        return Sent::kYes;
      case TINE_WAIT:
        return Sent::kNoRoom;
      case TINE_END:
        return Sent::kNotWanted;
      default:
        detail::raise<CallError>();
    }
  }

  /// Ends the stream.
  void finish() { tine_sender_finish(sender_.release(), nullptr, 0); }

  /// Ends the stream with the service's error.
  void error(std::string message) {
    const Bytes last = encode_response(error_name_, ErrorResponse{std::move(message)});
    tine_sender_finish(sender_.release(), last.data(), last.size());
  }

 private:
  struct Drop {
    void operator()(tine_sender* sender) const {
      tine_sender_fail(sender, "TN0926", "the service dropped the stream without an end");
    }
  };

  std::unique_ptr<tine_sender, Drop> sender_;
  std::string_view name_;
  std::string_view error_name_;
};

/// A request whose name was read, and whose fields were not.
class Incoming {
 public:
  Incoming(const tine_request& request, std::string_view error_name)
      : payload_(detail::own(request.payload)),
        reader_(payload_),
        responder_(request.responder),
        error_name_(error_name) {}

  Incoming(const Incoming&) = delete;
  Incoming& operator=(const Incoming&) = delete;
  ~Incoming() { tine_responder_drop(responder_); }

  std::string_view read_name() { return read_request(reader_); }

  /// Reads the fields and hands them over with what answers them.
  template <typename Q, template <typename> typename Responder, typename R, typename F>
  void accept(std::string_view response_name, F handle) {
    Q fields = decode_message<Q>(reader_);
    handle(std::move(fields),
           Responder<R>(std::exchange(responder_, nullptr), response_name, error_name_));
  }

  /// Answers that the request cannot be read.
  void refuse(const DecodeError& error) {
    const ErrorResponse response{error.code() + ": " + error.what()};
    const Bytes payload = encode_response(error_name_, response);
    tine_responder_ok(std::exchange(responder_, nullptr), payload.data(), payload.size());
  }

 private:
  Bytes payload_;
  Reader reader_;
  tine_responder* responder_;
  std::string_view error_name_;
};

/// A listening server. Any number of threads may take requests from it.
class Server {
 public:
  Server(const std::string& path, const SchemaHash* schema, std::string_view error_name,
         std::uint32_t clients_max)
      : error_name_(error_name) {
    const std::uint8_t* hash = schema == nullptr ? nullptr : schema->data();
    if (tine_server_listen(path.c_str(), hash, clients_max, &server_) != TINE_OK) {
      detail::raise<ConnectError>();
    }
  }

  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server() { tine_server_close(server_, kFlushMs); }

  /// Takes requests on this thread until `shutdown`.
  template <typename F>
  void run(F dispatch) {
    while (next(Milliseconds(kTurnMs), dispatch)) {
    }
  }

  /// Takes one request, if one comes within the limit. False: the server was shut down.
  template <typename F>
  bool next(Milliseconds limit, F dispatch) {
    tine_request request{};
    switch (tine_server_next(server_, detail::limit_ms(limit), &request)) {
      case TINE_OK: {
        Incoming incoming(request, error_name_);
        try {
          dispatch(incoming);
        } catch (const DecodeError& error) {
          incoming.refuse(error);
        }
        return true;
      }
      case TINE_WAIT:
        return true;
      case TINE_END:
        return false;
      default:
        detail::raise<CallError>();
    }
  }

  /// Makes every `run` return.
  void shutdown() { tine_server_shutdown(server_, kFlushMs); }

 private:
  static constexpr std::uint32_t kFlushMs = 2'000;
  static constexpr std::uint32_t kTurnMs = 1'000;

  tine_server* server_ = nullptr;
  std::string_view error_name_;
};

}  // namespace tine
