#include "transports/framed/call_table.h"

#include <cstdint>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace shmrpc::framed {
namespace {

struct TableCall {
  uint64_t id;
  TableCall* next_in_table = nullptr;
};

TEST(CallTableTest, FindsWhatIsInIt) {
  CallTable<TableCall> table;
  EXPECT_TRUE(table.empty());
  TableCall call{7};
  EXPECT_TRUE(table.Insert(&call));
  EXPECT_FALSE(table.empty());
  EXPECT_EQ(table.Find(7), &call);
  EXPECT_EQ(table.Find(8), nullptr);
  table.Erase(&call);
  EXPECT_EQ(table.Find(7), nullptr);
  EXPECT_TRUE(table.empty());
  table.Erase(&call);  // harmless
  EXPECT_TRUE(table.empty());
}

TEST(CallTableTest, AnIdIsThereOnce) {
  CallTable<TableCall> table;
  TableCall first{7}, second{7};
  EXPECT_TRUE(table.Insert(&first));
  EXPECT_FALSE(table.Insert(&second));
  table.Erase(&second);  // not the one that is in it
  EXPECT_EQ(table.Find(7), &first);
}

// What a client of this library chooses (a slot and, above it, a generation), and what a hostile one may.
TEST(CallTableTest, GrowsWithTheCallsWhateverTheirIds) {
  for (const int shift : {0, 20, 44, 58}) {
    CallTable<TableCall> table;
    const uint64_t count = shift == 58 ? 64 : 3000;
    std::vector<TableCall> calls;
    for (uint64_t i = 0; i < count; ++i) calls.push_back({i << shift});
    for (TableCall& call : calls) ASSERT_TRUE(table.Insert(&call));
    for (TableCall& call : calls) ASSERT_EQ(table.Find(call.id), &call);
    std::set<const TableCall*> seen;
    table.ForEach([&](TableCall* call) { EXPECT_TRUE(seen.insert(call).second); });
    EXPECT_EQ(seen.size(), calls.size());
    for (size_t i = 0; i < calls.size(); i += 2) table.Erase(&calls[i]);
    for (size_t i = 0; i < calls.size(); ++i) {
      ASSERT_EQ(table.Find(calls[i].id), i % 2 == 0 ? nullptr : &calls[i]);
    }
    for (size_t i = 1; i < calls.size(); i += 2) table.Erase(&calls[i]);
    EXPECT_TRUE(table.empty());
  }
}

}  // namespace
}  // namespace shmrpc::framed
