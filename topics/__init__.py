"""What each topic is: name, key, value, partitions, retention, compaction."""

from topics.specs import MAX_MESSAGE_BYTES, StreamTopics, TopicSpec, topics_of

__all__ = ["MAX_MESSAGE_BYTES", "StreamTopics", "TopicSpec", "topics_of"]
