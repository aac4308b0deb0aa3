"""Router traces of Megatron-LM: the format, and the steps that its rank files hold."""
