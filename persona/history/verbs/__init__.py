"""One module for each verb of the library and the command line. A verb imports no verb."""
