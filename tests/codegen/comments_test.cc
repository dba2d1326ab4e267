#include "codegen/comments.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace shmrpc::codegen {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CommentsTest, LinesKeepTheirIndentation) {
  EXPECT_THAT(CommentLines(" One.\n   Two.\n"), ElementsAre(" One.", "   Two."));
}

TEST(CommentsTest, LinesBeginWithASpace) { EXPECT_THAT(CommentLines("One.\n"), ElementsAre(" One.")); }

TEST(CommentsTest, EmptyLinesAreKeptOnlyInside) {
  EXPECT_THAT(CommentLines("\n \n One.\n\n Two.\n\n"), ElementsAre(" One.", "", " Two."));
  EXPECT_THAT(CommentLines(""), IsEmpty());
  EXPECT_THAT(CommentLines("\n  \n"), IsEmpty());
}

TEST(CommentsTest, NoLineEndsInABackslash) {
  EXPECT_THAT(CommentLines(" C:\\\n D:\\  \n E:\\\r\n"), ElementsAre(" C:\\ //", " D:\\ //", " E:\\ //"));
}

TEST(CommentsTest, CarriageReturnsEndLines) {
  EXPECT_THAT(CommentLines(" One.\r\n Two.\rint three;\n"), ElementsAre(" One.", " Two.", " int three;"));
}

}  // namespace
}  // namespace shmrpc::codegen
