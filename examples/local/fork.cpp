// Forks a live database, tries something out there, and drops the fork: `fork PATH DATABASE`.
//
// PATH is one of those that `tine serve --ipc` serves, DATABASE has the module beside this file.
#include <iostream>
#include <string>

#include "generated/tine.hpp"

namespace {

tine::Bytes encode(const std::string& json) { return {json.begin(), json.end()}; }

// The number after `"balance":` of an account's row, as text.
std::string balance(const tine::TineClient& client, tine::ForkNumber fork, const std::string& account) {
  tine::TineGet get;
  get.fork = fork;
  get.table = "account";
  get.key = encode("[" + account + "]");
  get.json = true;
  const auto rows = client.get(get).rows;
  if (rows.empty()) {
    return "none";
  }
  const std::string row(rows[0].begin(), rows[0].end());
  const std::string name = "\"balance\":";
  const auto begin = row.find(name) + name.size();
  return row.substr(begin, row.find_first_of(",}", begin) - begin);
}

tine::Lsn transfer(const tine::TineClient& client, tine::ForkNumber fork,
                          const std::string& arguments) {
  return client.call_reducer({fork, "transfer", encode(arguments), true}).lsn;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: fork PATH DATABASE\n";
    return 2;
  }
  std::cout << std::boolalpha;
  const tine::TineClient client(arguments[1]);
  const auto main = client.open_fork({arguments[2]});
  const auto fork = client.fork({main.fork, std::nullopt, std::nullopt, false});
  std::cout << "the fork begins at the database's LSN: " << (fork.lsn >= main.lsn) << "\n";

  // What the fork does is a commit of the fork alone.
  client.insert({fork.fork, "account", {encode(R"({"id": 2, "owner": "Bob", "balance": 0})")}, true});
  const auto paid = transfer(client, fork.fork, "[1, 2, 30]");
  std::cout << "commits of the fork: " << paid - fork.lsn << "\n";

  // A checkpoint takes back what turns out badly; the way back is a commit too.
  const auto checkpoint = client.begin_checkpoint({fork.fork}).checkpoint;
  transfer(client, fork.fork, "[1, 2, 70]");
  try {
    transfer(client, fork.fork, "[1, 2, 1]");
  } catch (const tine::ServiceError& error) {
    const std::string said = error.what();
    std::cout << "refused: " << (said.find("not enough money") != std::string::npos) << "\n";
  }
  const auto back = client.revert_checkpoint({fork.fork, checkpoint}).lsn;
  std::cout << "LSNs go on: " << (back > paid) << "\n";

  std::cout << "on the fork: " << balance(client, fork.fork, "1") << " " << balance(client, fork.fork, "2") << "\n";
  std::cout << "in the database: " << balance(client, main.fork, "1") << " " << balance(client, main.fork, "2") << "\n";
  client.drop_fork({fork.fork});
}
