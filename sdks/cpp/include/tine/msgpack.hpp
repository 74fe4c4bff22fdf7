/// The MessagePack of services: every value in its smallest form, and a reader that trusts no length.
///
/// Nothing here recurses along data, and what elements of lists will take in memory is charged
/// against a multiple of the data's size before it is allocated.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tine {

using Bytes = std::vector<std::uint8_t>;

/// An error with the stable code that `tine explain` tells more about.
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& message)
      : std::runtime_error(message), code_(std::move(code)) {}

  const std::string& code() const noexcept { return code_; }

 private:
  std::string code_;
};

/// Bytes that are not a value of the wanted type.
class DecodeError : public Error {
 public:
  using Error::Error;
};

/// A `u8` as element of a list, since several plain ones are a byte string.
struct Octet {
  std::uint8_t value = 0;

  bool operator==(const Octet&) const = default;
};

/// Appends values in their smallest form.
class Writer {
 public:
  Bytes take() { return std::move(buffer_); }

  void nil() { buffer_.push_back(0xc0); }

  void boolean(bool value) { buffer_.push_back(value ? 0xc3 : 0xc2); }

  void integer(std::uint64_t value) {
    if (value <= 0x7f) {
      buffer_.push_back(static_cast<std::uint8_t>(value));
    } else if (value <= 0xff) {
      marked(0xcc, value, 1);
    } else if (value <= 0xffff) {
      marked(0xcd, value, 2);
    } else if (value <= 0xffffffff) {
      marked(0xce, value, 4);
    } else {
      marked(0xcf, value, 8);
    }
  }

  void real(double value) { marked(0xcb, std::bit_cast<std::uint64_t>(value), 8); }

  void string(std::string_view value) {
    if (value.size() <= 0x1f) {
      buffer_.push_back(static_cast<std::uint8_t>(0xa0 | value.size()));
    } else if (value.size() <= 0xff) {
      marked(0xd9, value.size(), 1);
    } else {
      long_length(0xda, value.size());
    }
    buffer_.insert(buffer_.end(), value.begin(), value.end());
  }

  void binary(std::span<const std::uint8_t> value) {
    if (value.size() <= 0xff) {
      marked(0xc4, value.size(), 1);
    } else {
      long_length(0xc5, value.size());
    }
    buffer_.insert(buffer_.end(), value.begin(), value.end());
  }

  /// The head of an array; its elements follow.
  void array(std::size_t length) { head(0x90, 0xdc, length); }

  /// The head of a map; its keys and values follow by turns.
  void map(std::size_t length) { head(0x80, 0xde, length); }

  /// A field of a map: its name and its value.
  template <typename T>
  void field(std::string_view name, const T& value) {
    string(name);
    write(*this, value);
  }

 private:
  void head(std::uint8_t fix, std::uint8_t marker, std::size_t length) {
    if (length <= 0xf) {
      buffer_.push_back(static_cast<std::uint8_t>(fix | length));
    } else {
      long_length(marker, length);
    }
  }

  /// A length of 16 or 32 bits; the marker of the latter is the next one.
  void long_length(std::uint8_t marker, std::size_t length) {
    if (length <= 0xffff) {
      marked(marker, length, 2);
    } else if (length <= 0xffffffff) {
      marked(static_cast<std::uint8_t>(marker + 1), length, 4);
    } else {
      throw std::length_error("values are below 4 GiB, as frames are");
    }
  }

  void marked(std::uint8_t marker, std::uint64_t value, int bytes) {
    buffer_.push_back(marker);
    for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) {
      buffer_.push_back(static_cast<std::uint8_t>(value >> shift));
    }
  }

  Bytes buffer_;
};

/// A field's name on the wire, and whether it must be there.
struct FieldName {
  std::string_view name;
  bool is_required;
};

/// Reads values one after the other.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> data)
      : data_(data), memory_left_(data.size() * kMemoryPerByte + kMemoryFree) {}

  /// Checks that nothing is left.
  void finish() const {
    if (position_ != data_.size()) {
      fail("TN1051", "bytes left after the value, which ends");
    }
  }

  /// Whether the next value is the absent one, which is then taken.
  bool take_nil() {
    const bool is_nil = position_ < data_.size() && data_[position_] == 0xc0;
    position_ += is_nil ? 1 : 0;
    return is_nil;
  }

  bool boolean() {
    const std::uint8_t marker = take_marker();
    if (marker != 0xc2 && marker != 0xc3) {
      wrong("a boolean");
    }
    return marker == 0xc3;
  }

  /// An integer of any width from 0 to `max`.
  std::uint64_t integer(std::uint64_t max) {
    const Number number = take_integer();
    if (number.is_negative || number.magnitude > max) {
      fail("TN1043", "integer out of range before the one");
    }
    return number.magnitude;
  }

  /// A float, or a whole number in its place.
  double real() {
    const std::uint8_t marker = peek();
    if (marker == 0xcb) {
      position_ += 1;
      return std::bit_cast<double>(big_endian(8));
    }
    if (marker == 0xca) {
      position_ += 1;
      return std::bit_cast<float>(static_cast<std::uint32_t>(big_endian(4)));
    }
    const Number number = take_integer();
    const double magnitude = static_cast<double>(number.magnitude);
    return number.is_negative ? -magnitude : magnitude;
  }

  /// A string, as a view of the data.
  std::string_view string() {
    const std::string_view text = key();
    if (!is_utf8(text)) {
      fail("TN1044", "string that is not UTF-8 before the one");
    }
    return text;
  }

  /// A byte string, as a view of the data.
  std::span<const std::uint8_t> binary() {
    const std::uint8_t marker = take_marker();
    if (marker < 0xc4 || marker > 0xc6) {
      wrong("a byte string");
    }
    return take(static_cast<std::size_t>(big_endian(1 << (marker - 0xc4))));
  }

  /// A byte string of exactly so many bytes.
  std::span<const std::uint8_t> binary(std::size_t length) {
    const auto value = binary();
    if (value.size() != length) {
      fail("TN1045", "bytes of the wrong length");
    }
    return value;
  }

  /// The head of an array whose elements take so many bytes each in memory.
  std::size_t array(std::size_t element_bytes) {
    const std::size_t count = head(0x90, 0xdc, "an array", 1);
    if (element_bytes != 0 && count > memory_left_ / element_bytes) {
      fail("TN1047", "elements that would take too much memory");
    }
    memory_left_ -= count * element_bytes;
    return count;
  }

  /// The head of an array of exactly so many elements.
  void array_of(std::size_t length) {
    if (array(0) != length) {
      fail("TN1045", "a list of the wrong length");
    }
  }

  /// Reads a map: calls `read_field` with the place of each known field, ignores others.
  template <std::size_t N, typename F>
  void fields(const std::array<FieldName, N>& names, F read_field) {
    std::array<bool, N> seen{};
    for (std::size_t left = head(0x80, 0xde, "a map", 2); left > 0; left--) {
      const std::string_view name = key();
      std::size_t place = 0;
      while (place < N && names[place].name != name) {
        place++;
      }
      if (place == N) {
        skip();
        continue;
      }
      if constexpr (N > 0) {
        if (std::exchange(seen[place], true)) {
          fail("TN1049", "field `" + std::string(name) + "` appears twice");
        }
      }
      read_field(place);
    }
    for (std::size_t place = 0; place < N; place++) {
      if (names[place].is_required && !seen[place]) {
        fail("TN1048", "field `" + std::string(names[place].name) + "` is missing in the map that ends");
      }
    }
  }

  /// Passes over one value of any kind, however deeply it nests.
  void skip() {
    // Each turn takes at least one byte, so the data bounds the loop whatever lengths it claims.
    for (std::uint64_t values_left = 1; values_left > 0;) {
      values_left += skip_head() - 1;
    }
  }

  /// The error of a message of another name than the service has.
  [[noreturn]] static void unknown_message(std::string_view name) {
    throw DecodeError("TN1050", "unknown message `" + std::string(name.substr(0, 100)) + "`");
  }

 private:
  /// Memory that elements may take per byte of data, and beside it.
  static constexpr std::size_t kMemoryPerByte = 64;
  static constexpr std::size_t kMemoryFree = std::size_t{64} << 10;

  struct Number {
    std::uint64_t magnitude;
    bool is_negative;
  };

  Number take_integer() {
    const std::uint8_t marker = take_marker();
    if (marker <= 0x7f) {
      return {marker, false};
    }
    if (marker >= 0xe0) {
      return {static_cast<std::uint64_t>(0x100 - marker), true};
    }
    if (marker >= 0xcc && marker <= 0xcf) {
      return {big_endian(1 << (marker - 0xcc)), false};
    }
    if (marker < 0xd0 || marker > 0xd3) {
      wrong("an integer");
    }
    const int bytes = 1 << (marker - 0xd0);
    const std::uint64_t bits = big_endian(bytes);
    const std::uint64_t sign = std::uint64_t{1} << (bytes * 8 - 1);
    if ((bits & sign) == 0) {
      return {bits, false};
    }
    // The magnitude of a negative number in two's complement.
    return {(sign - (bits & (sign - 1))), true};
  }

  std::string_view key() {
    const std::uint8_t marker = take_marker();
    std::size_t length = marker & 0x1f;
    if (marker >= 0xd9 && marker <= 0xdb) {
      length = static_cast<std::size_t>(big_endian(1 << (marker - 0xd9)));
    } else if (marker < 0xa0 || marker > 0xbf) {
      wrong("a string");
    }
    const auto text = take(length);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

  std::size_t head(std::uint8_t fix, std::uint8_t marker16, const char* expected, std::size_t values) {
    const std::uint8_t marker = take_marker();
    std::size_t count = marker & 0xf;
    if (marker == marker16 || marker == marker16 + 1) {
      count = static_cast<std::size_t>(big_endian(marker == marker16 ? 2 : 4));
    } else if ((marker & 0xf0) != fix) {
      wrong(expected);
    }
    if (count > (data_.size() - position_) / values) {
      fail("TN1046", std::to_string(count) + " elements are more than the data can hold");
    }
    return count;
  }

  /// Passes over a value but not what is inside it; how many values that are.
  std::uint64_t skip_head() {
    const std::uint8_t marker = take_marker();
    if (marker <= 0x7f || marker >= 0xe0 || marker == 0xc0 || marker == 0xc2 || marker == 0xc3) {
      return 0;
    }
    if (marker <= 0x8f) {
      return std::uint64_t{2} * (marker & 0xf);
    }
    if (marker <= 0x9f) {
      return marker & 0xf;
    }
    if (marker >= 0xdc) {
      const std::uint64_t count = big_endian((marker & 1) != 0 ? 4 : 2);
      return marker >= 0xde ? count * 2 : count;
    }
    take(scalar_length(marker));
    return 0;
  }

  std::size_t scalar_length(std::uint8_t marker) {
    if (marker <= 0xbf) {
      return marker & 0x1f;
    }
    if (marker == 0xc1) {
      wrong("a value");
    }
    if (marker <= 0xc6) {
      return static_cast<std::size_t>(big_endian(1 << (marker - 0xc4)));
    }
    if (marker <= 0xc9) {
      return static_cast<std::size_t>(big_endian(1 << (marker - 0xc7))) + 1;
    }
    if (marker <= 0xcb) {
      return marker == 0xca ? 4 : 8;
    }
    if (marker <= 0xcf) {
      return std::size_t{1} << (marker - 0xcc);
    }
    if (marker <= 0xd3) {
      return std::size_t{1} << (marker - 0xd0);
    }
    if (marker <= 0xd8) {
      return (std::size_t{1} << (marker - 0xd4)) + 1;
    }
    return static_cast<std::size_t>(big_endian(1 << (marker - 0xd9)));
  }

  std::uint8_t peek() const {
    if (position_ == data_.size()) {
      fail("TN1041", "unexpected end of data");
    }
    return data_[position_];
  }

  std::uint8_t take_marker() {
    const std::uint8_t marker = peek();
    position_ += 1;
    return marker;
  }

  std::span<const std::uint8_t> take(std::size_t count) {
    if (count > data_.size() - position_) {
      fail("TN1041", "unexpected end of data");
    }
    const auto taken = data_.subspan(position_, count);
    position_ += count;
    return taken;
  }

  std::uint64_t big_endian(int bytes) {
    std::uint64_t value = 0;
    for (const std::uint8_t byte : take(static_cast<std::size_t>(bytes))) {
      value = (value << 8) | byte;
    }
    return value;
  }

  [[noreturn]] void fail(const char* code, const std::string& what) const {
    throw DecodeError(code, what + " at byte " + std::to_string(position_));
  }

  [[noreturn]] void wrong(const char* expected) const {
    fail("TN1042", std::string("expected ") + expected + " before the one");
  }

  /// Whether text is UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
  static bool is_utf8(std::string_view text) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(text.data());
    for (std::size_t index = 0; index < text.size();) {
      const std::uint8_t first = bytes[index];
      if (first < 0x80) {
        index += 1;
        continue;
      }
      const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
      if (first < 0xc2 || first > 0xf4 || length > text.size() - index) {
        return false;
      }
      for (std::size_t offset = 1; offset < length; offset++) {
        if ((bytes[index + offset] & 0xc0) != 0x80) {
          return false;
        }
      }
      const std::uint8_t second = bytes[index + 1];
      if ((first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
          (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f)) {
        return false;
      }
      index += length;
    }
    return true;
  }

  std::span<const std::uint8_t> data_;
  std::size_t position_ = 0;
  std::size_t memory_left_;
};

inline void write(Writer& writer, bool value) { writer.boolean(value); }
inline void write(Writer& writer, std::uint8_t value) { writer.integer(value); }
inline void write(Writer& writer, std::uint16_t value) { writer.integer(value); }
inline void write(Writer& writer, std::uint32_t value) { writer.integer(value); }
inline void write(Writer& writer, std::uint64_t value) { writer.integer(value); }
inline void write(Writer& writer, double value) { writer.real(value); }
inline void write(Writer& writer, const std::string& value) { writer.string(value); }
inline void write(Writer& writer, const Bytes& value) { writer.binary(value); }
inline void write(Writer& writer, Octet value) { writer.integer(value.value); }

template <std::size_t N>
void write(Writer& writer, const std::array<std::uint8_t, N>& value) {
  writer.binary(value);
}

template <typename T>
void write(Writer& writer, const std::optional<T>& value) {
  if (value) {
    write(writer, *value);
  } else {
    writer.nil();
  }
}

template <typename T>
void write(Writer& writer, const std::vector<T>& values) {
  writer.array(values.size());
  for (const T& value : values) {
    write(writer, value);
  }
}

/// The elements of `std::vector<bool>` are no references.
inline void write(Writer& writer, const std::vector<bool>& values) {
  writer.array(values.size());
  for (const bool value : values) {
    write(writer, value);
  }
}

template <typename T, std::size_t N>
void write(Writer& writer, const std::array<T, N>& values) {
  writer.array(N);
  for (const T& value : values) {
    write(writer, value);
  }
}

template <typename T>
T narrow(Reader& reader) {
  return static_cast<T>(reader.integer(std::numeric_limits<T>::max()));
}

inline void read(Reader& reader, bool& value) { value = reader.boolean(); }
inline void read(Reader& reader, std::uint8_t& value) { value = narrow<std::uint8_t>(reader); }
inline void read(Reader& reader, std::uint16_t& value) { value = narrow<std::uint16_t>(reader); }
inline void read(Reader& reader, std::uint32_t& value) { value = narrow<std::uint32_t>(reader); }
inline void read(Reader& reader, std::uint64_t& value) { value = narrow<std::uint64_t>(reader); }
inline void read(Reader& reader, double& value) { value = reader.real(); }
inline void read(Reader& reader, std::string& value) { value = reader.string(); }
inline void read(Reader& reader, Octet& value) { value.value = narrow<std::uint8_t>(reader); }

inline void read(Reader& reader, Bytes& value) {
  const auto found = reader.binary();
  value.assign(found.begin(), found.end());
}

template <std::size_t N>
void read(Reader& reader, std::array<std::uint8_t, N>& value) {
  const auto found = reader.binary(N);
  std::memcpy(value.data(), found.data(), N);
}

template <typename T>
void read(Reader& reader, std::optional<T>& value) {
  value.reset();
  if (!reader.take_nil()) {
    read(reader, value.emplace());
  }
}

template <typename T>
void read(Reader& reader, std::vector<T>& values) {
  const std::size_t count = reader.array(sizeof(T));
  values.clear();
  values.resize(count);
  for (T& value : values) {
    read(reader, value);
  }
}

inline void read(Reader& reader, std::vector<bool>& values) {
  values.assign(reader.array(1), false);
  for (std::size_t index = 0; index < values.size(); index++) {
    values[index] = reader.boolean();
  }
}

template <typename T, std::size_t N>
void read(Reader& reader, std::array<T, N>& values) {
  reader.array_of(N);
  for (T& value : values) {
    read(reader, value);
  }
}

/// A whole request.
template <typename T>
Bytes encode_request(std::string_view name, const T& fields) {
  Writer writer;
  writer.array(1);
  writer.array(2);
  writer.string(name);
  write(writer, fields);
  return writer.take();
}

/// A whole response.
template <typename T>
Bytes encode_response(std::string_view name, const T& fields) {
  Writer writer;
  writer.array(2);
  writer.string(name);
  write(writer, fields);
  return writer.take();
}

/// The name of a request, whose fields follow.
inline std::string_view read_request(Reader& reader) {
  reader.array_of(1);
  reader.array_of(2);
  return reader.string();
}

/// The name of a response, whose fields follow.
inline std::string_view read_response(Reader& reader) {
  reader.array_of(2);
  return reader.string();
}

/// The fields of a message, the last thing in it.
template <typename T>
T decode_message(Reader& reader) {
  T fields{};
  read(reader, fields);
  reader.finish();
  return fields;
}

}  // namespace tine
