"""Records with answers: pairs and chats, their templates, their tokens."""
