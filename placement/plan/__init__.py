"""The plan: which logical expert every slot holds, and its file."""
