"""What `import tensorrt` finds in a child process of a test: the fake that its parent described."""

import sys

from fake_tensorrt.fake import from_environment

sys.modules[__name__] = from_environment().module
